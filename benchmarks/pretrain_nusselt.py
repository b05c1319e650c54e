"""Pretrain the bundled priors of Nusselt laws on campaigns drawn from published correlations; one
CPU minute each.

    python benchmarks/pretrain_nusselt.py --out runs/heat [--only nusselt-ribbed]

No measured point is used, and no law that was fitted to the points of `ribbed-channel`, on which
the priors are judged: neither Han 1988 nor Han, Zhang & Lee 1991. Han & Park 1988 is from the same
laboratory and may share points with them, so `nusselt-tubes` does without it.
"""

import argparse
from pathlib import Path

from sciforge import api
from sciforge.core.training.run import Hardware, Run, Schedule
from sciforge.heat.data.campaigns import Campaigns
from sciforge.heat.objectives.campaign_pretraining import CampaignEvidence

V_RIBS = "lau-1990-90+lau-1990-v45+lau-1990-v60+lau-1990-v60-p20"
REVERSED_V_RIBS = "lau-1990-90+lau-1990-v120+lau-1990-v120-p20+lau-1990-v135"
TUBES = ("webb-1971", "ravigururajan-bergles-1996", "rallabandi-2009", V_RIBS, REVERSED_V_RIBS)
SMOOTH = (
    "gnielinski",
    "petukhov-kirillov-popov",
    "colburn",
    "sieder-tate",
    "smooth-duct",
    "schlichting",
    "plate-turbulent-mean",
)
PRIORS = {
    "nusselt-ribbed": ("ribbed", (*TUBES, "han-park-1988"), CampaignEvidence()),
    "nusselt-tubes": ("tubes", TUBES, CampaignEvidence()),
    "nusselt-smooth": ("smooth", SMOOTH, CampaignEvidence(level=0.8)),
}
SCHEDULE = Schedule(
    steps=400, batch=24, lr=0.03, min_lr_ratio=0.03, weight_decay=0.0, clip=20.0, evaluate_every=200
)


def pretrain(name: str, out: Path) -> None:
    """Prepare the campaigns of one prior, pretrain it and give it the Fisher information that
    EWC needs.
    """
    preset, systems, objective = PRIORS[name]
    store = api.prepare(Campaigns(systems=systems, campaigns=300), out / f"{name}-campaigns")
    hardware = Hardware(device="cpu", precision="float64", threads=1)
    run = Run(
        data=store.path,
        out=out / name,
        objective=objective,
        model=preset,
        schedule=SCHEDULE,
        hardware=hardware,
    )
    made = api.train(run)
    made = api.fisher(made.path, store.path, examples=64)
    print(
        name,
        {key: round(value, 3) for key, value in made.metrics.items() if isinstance(value, float)},
        flush=True,
    )


def main() -> None:
    """Pretrain the priors that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument(
        "--only", choices=PRIORS, nargs="*", default=list(PRIORS), help="names of priors"
    )
    options = parser.parse_args()
    for name in options.only:
        pretrain(name, options.out)


if __name__ == "__main__":
    main()
