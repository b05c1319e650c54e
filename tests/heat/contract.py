"""What tests/test_contract.py needs of this domain: tiny stores and two tiny runs on them."""

from pathlib import Path

import numpy as np
import torch

from sciforge.core.data.store import Store, prepare
from sciforge.core.training.run import Hardware, Run, Schedule
from sciforge.heat.correlations.library import get_correlation
from sciforge.heat.data.campaigns import Campaigns
from sciforge.heat.data.measurements import Measurements
from sciforge.heat.model.nusselt_net import NusseltConfig
from sciforge.heat.objectives.campaign_pretraining import CampaignEvidence
from sciforge.heat.objectives.nusselt import Nusselt

HEAD = "Re,Pr,e_D,P_e,alpha_deg,W_H,Nu,rig"


def measured(path: Path, num: int = 48, rigs: int = 2) -> Path:
    """Write points of rigs that are some per cent off Han and Park's law."""
    rng = np.random.default_rng(5)
    draws = {
        "Re": rng.uniform(1e4, 6e4, num).round(),
        "Pr": np.full(num, 0.703),
        "e_D": rng.uniform(0.05, 0.07, num),
    }
    draws |= {
        "P_e": rng.uniform(10, 20, num),
        "alpha_deg": rng.choice([45.0, 60.0, 89.0], num),
        "W_H": rng.choice([1.0, 2.0], num),
    }
    law = (
        get_correlation("han-park-1988")
        .unchecked({name: torch.from_numpy(x) for name, x in draws.items()})
        .numpy()
    )
    rig_N = np.arange(num) % rigs
    nusselt_N = law * np.exp(
        0.08 * rig_N - 0.05 * np.log(draws["Re"] / 3e4) + 0.03 * rng.standard_normal(num)
    )
    rows = [
        ",".join(f"{x[i]:.6g}" for x in (*draws.values(), nusselt_N)) + f",rig {rig_N[i]}"
        for i in range(num)
    ]
    basis = "# basis: ribbed wall, projected area, smooth diameter\n"
    path.write_text(basis + HEAD + "\n" + "\n".join(rows) + "\n")
    return path


def tiny(folder: Path) -> tuple[Store, Run, Run]:
    """Return a store, a pretraining run on it, and a fine-tuning run from that run's checkpoint."""
    systems = ("webb-1971", "ravigururajan-bergles-1996", "lau-1990-90+lau-1990-v45")
    store = prepare(
        Campaigns(systems=systems, campaigns=20, plates=2, readings=4, validation_share=0.3),
        folder / "old",
    )
    shares = (0.5, 0.25, 0.25)
    prepare(Measurements(files=(measured(folder / "new.csv"),), shares=shares), folder / "new")
    common = {"hardware": Hardware(device="cpu", precision="float64", threads=1), "seed": 3}
    pretraining = Run(
        data=folder / "old",
        out=folder / "pretraining",
        model=NusseltConfig(("dittus-boelter", "webb-1971", "ravigururajan-bergles-1996")),
        objective=CampaignEvidence(),
        schedule=Schedule(steps=6, batch=8, lr=3e-2, evaluate_every=3, ema_decay=0.5),
        **common,
    )
    finetuning = Run(
        data=folder / "new",
        out=folder / "finetuning",
        init=pretraining.out,
        objective=Nusselt(),
        schedule=Schedule(steps=6, batch=8, lr=1e-4, kind="step", evaluate_every=2, patience=3),
        **common,
    )
    return store, pretraining, finetuning
