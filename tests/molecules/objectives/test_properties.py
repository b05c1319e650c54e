"""Learning properties: gaps, numbers and classes together, the solved head, uncertainty,
prediction from files.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sciforge.core.data.store import Store, prepare
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.loop import train
from sciforge.core.training.model import Model
from sciforge.core.training.run import EWC, Hardware, LoRA, Run, Schedule, Subset
from sciforge.errors import ConfigError, DataError
from sciforge.molecules.data.codec import MoleculeCodec
from sciforge.molecules.data.prepare import Molecules
from sciforge.molecules.evaluation.baselines import BASELINES
from sciforge.molecules.inference.predictions import PredictedProperties, conformal_width
from sciforge.molecules.model.molecule_transformer import MoleculeNetConfig
from sciforge.molecules.objectives.properties import Properties
from sciforge.molecules.objectives.self_supervised import (
    DescriptorsAndMasked,
    MaskedAtoms,
    PredictDescriptors,
)

TINY = MoleculeNetConfig(width=16, depth=1, heads=2)
EXACT = Hardware(device="cpu", precision="float64", threads=1)
PARTS = ("C", "CC", "CO", "CN", "C(=O)O", "Cl", "F", "c1ccccc1", "C#N", "CCO", "C1CC1", "c1ccncc1")


def molecules() -> list[str]:
    """Return 144 molecules: every pair of parts on a carbon."""
    return [f"{a}C{b}" if a[0] not in "ClF" else f"{b}C{a}" for a in PARTS for b in PARTS]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """Molecules with the number of heteroatoms, a class that it decides, and gaps in both."""
    folder = tmp_path_factory.mktemp("labels")
    rows = []
    for number, smiles in enumerate(molecules()):
        count = sum(smiles.count(letter) for letter in "ONFn") + smiles.count("Cl")
        cells = (
            f"{2.0 * count + 5:g}" if number % 5 else "",
            (f"{int(count > 1)}" if number % 7 else ""),
        )
        rows.append(f"{smiles},{cells[0]},{cells[1]}")
    (folder / "a.csv").write_text("smiles,count,many\n" + "\n".join(rows) + "\n")
    options = {
        "labels": ("count", "many"),
        "split": "random",
        "shares": (0.6, 0.2, 0.2),
        "descriptors": True,
    }
    return prepare(
        Molecules(files=(folder / "a.csv",), **options), folder / "store", on_error="skip"
    )


@pytest.fixture(scope="module")
def pretrained(store, tmp_path_factory) -> Checkpoint:
    out = tmp_path_factory.mktemp("pretrained")
    return train(_run(store, out / "run", model=TINY, objective=PredictDescriptors()))


def _run(store: Store, out: Path, steps: int = 3, rate: float = 1e-6, **fields) -> Run:
    schedule = Schedule(steps=steps, batch=16, lr=rate, kind="constant")
    return Run(data=store.path, out=out, schedule=schedule, hardware=EXACT, **fields)


@pytest.fixture(scope="module")
def learnt(store, pretrained, tmp_path_factory) -> Checkpoint:
    return train(
        _run(
            store,
            tmp_path_factory.mktemp("learnt") / "run",
            init=pretrained.path,
            objective=Properties(),
        )
    )


def test_descriptors_are_learnt_and_unbent(store, pretrained):
    objective = pretrained.objectives[0]
    raw = torch.from_numpy(store.column("descriptor")[:20].copy()).double()
    bent = objective.bend(raw)
    weight = objective.names.index("MolWt")
    np.testing.assert_allclose(objective.unbend(bent)[:, weight], raw[:, weight], rtol=1e-5)
    first, last = (
        Model.load(pretrained.path).evaluate(store, split=split)["loss"]
        for split in ("train", "test")
    )
    assert np.isfinite([first, last]).all()


@pytest.mark.parametrize(
    "objective", [MaskedAtoms(0.3), PredictDescriptors(), DescriptorsAndMasked()]
)
def test_every_pretraining_falls(store, tmp_path, objective):
    checkpoint = train(
        _run(store, tmp_path / "run", model=TINY, objective=objective, steps=40, rate=1e-2)
    )
    fresh = train(_run(store, tmp_path / "none", model=TINY, objective=objective, steps=1))
    after, before = (
        Model.load(c.path).evaluate(store, split="test")["loss"] for c in (checkpoint, fresh)
    )
    assert after < 0.9 * before


def test_hidden_atoms_leave_no_trace(store):
    objective = MaskedAtoms(0.2)
    record = dict(store[50])
    example = objective.prepare(record, MoleculeCodec(), np.random.default_rng(0), training=True)
    hidden = example["target_atom"] >= 0
    changed = {**record, "atom": record["atom"].copy(), "hydrogens": record["hydrogens"].copy()}
    changed["atom"][hidden.numpy()] = 4
    changed["hydrogens"][hidden.numpy()] = 7
    again = objective.prepare(changed, MoleculeCodec(), np.random.default_rng(0), training=True)
    for name in ("atom", "hydrogens", "flags", "bond"):
        assert torch.equal(example[name], again[name])
    assert hidden.any()


def test_a_number_and_a_class_are_learnt_together_with_gaps(store, learnt):
    metrics = Model.load(learnt.path).evaluate(store, split="test")
    assert metrics["count/rmse"] < 1.5 and metrics["many/auroc"] > 0.9
    assert 0.6 <= metrics["count/coverage90"] <= 1.0
    assert metrics["error"] == pytest.approx((metrics["count/error"] + metrics["many/error"]) / 2)


def test_a_missing_label_counts_for_nothing(store, learnt):
    objective, codec = learnt.objectives[0], learnt.codec
    model = learnt.build().double()
    rng = np.random.default_rng(0)
    records = [dict(store.split("train")[i]) for i in range(6)]
    known = [np.isfinite(r["label"]).sum() for r in records]
    batch = codec.collate([objective.prepare(r, codec, rng, training=True) for r in records])
    assert int(objective.loss(model, batch).count) == sum(known)
    for r in records:
        r["label"] = np.full(2, np.nan, np.float32)
    blind = codec.collate([objective.prepare(r, codec, rng, training=True) for r in records])
    assert objective.loss(model, blind).total.item() == 0


def test_the_statistics_are_of_training_only(store):
    objective = Properties().resolve(store)
    label = store.split("train").column("label")[:, 0]
    assert objective.means == pytest.approx((float(np.nanmean(label)), 0.0))
    assert objective.stds == pytest.approx((float(np.nanstd(label)), 1.0)) and objective.yes_no == (
        False,
        True,
    )


def test_one_task_of_several_and_unknown_ones(store, tmp_path):
    assert Properties(tasks=("many",)).resolve(store).yes_no == (True,)
    with pytest.raises(DataError, match="did you mean 'count'"):
        Properties(tasks=("counts",)).resolve(store)
    with pytest.raises(ConfigError, match="known: forest"):
        Properties(readers=("trees",))
    run = _run(
        store,
        tmp_path / "one",
        model=TINY,
        objective=Properties(tasks=("many",)),
        subset=Subset(30),
    )
    assert Model.load(train(run).path).evaluate(store, split="test")["auroc"] > 0.6


@pytest.mark.parametrize("readers", [("linear",), ("kernel",), ("said",), ("forest",)])
def test_each_reader_alone(store, pretrained, tmp_path, readers):
    run = _run(store, tmp_path / "run", init=pretrained.path, objective=Properties(readers=readers))
    assert Model.load(train(run).path).evaluate(store, split="test")["many/auroc"] > 0.7


@pytest.mark.parametrize("how", ["lora", "ewc"])
def test_lora_and_ewc_work_on_molecules(store, learnt, pretrained, tmp_path, how):
    parent = pretrained if how == "lora" else learnt
    options = (
        {"finetuning": LoRA(rank=2)}
        if how == "lora"
        else {"regularization": EWC(data=store.path, examples=8)}
    )
    checkpoint = train(
        _run(store, tmp_path / how, init=parent.path, objective=Properties(), **options)
    )
    assert np.isfinite(Model.load(checkpoint.path).evaluate(store, split="test")["loss"])


def test_baselines_predict_what_curves_need(store):
    objective = Properties().resolve(store)
    train_records, test_records = (objective.examples(store, split) for split in ("train", "test"))
    error = {}
    for name, baseline in BASELINES.items():
        outputs = baseline(objective, train_records, test_records, 0)
        assert outputs["value"].shape == (len(test_records), 2)
        error[name] = objective.metrics(outputs, test_records)["count/rmse"]
    assert max(error, key=error.get) == "mean_only"


def test_predictions_keep_every_row_and_calibrate(store, learnt, tmp_path):
    (tmp_path / "new.csv").write_text(
        "smiles,name\nCCO,ethanol\nC(C,broken\nCC(=O)[O-].[Na+],salt\n[Pt],metal\n"
    )
    model = Model.load(learnt.path)
    result = PredictedProperties(files=(tmp_path / "new.csv",)).run(model)
    frame = result.to_pandas()
    assert frame["name"].tolist() == ["ethanol", "broken", "salt", "metal"]
    assert frame.loc[2, "smiles"] == "CC(=O)[O-].[Na+]"
    assert frame.loc[2, "canonical_smiles"] == "CC(=O)[O-]" and np.isnan(frame.loc[1, "count"])
    assert "cannot be parsed" in frame.loc[1, "problem"] and not frame.loc[0, "problem"]
    low, value, high = (frame.loc[0, f"count{end}"] for end in ("_lower", "", "_upper"))
    assert low < value < high and 0 <= frame.loc[0, "many_probability"] <= 1
    assert high - value == pytest.approx(1.6449 * frame.loc[0, "count_std"], rel=1e-4)
    # opens with defaults; provenance lies beside
    written = pd.read_csv(result.save(tmp_path / "out.csv"))
    assert written["count"].iloc[0] == pytest.approx(value)
    assert json.loads((tmp_path / "out.json").read_text())["options"]["level"] == 0.9
    labelled = [
        f"{r['smiles']},{r['label'][0]}"
        for name in ("validation", "test")
        for r in store.split(name)
        if np.isfinite(r["label"][0])
    ]
    (tmp_path / "cal.csv").write_text("smiles,count\n" + "\n".join(labelled) + "\n")
    options = {
        "files": tmp_path / "new.csv",
        "also": [learnt.path],
        "calibrate": str(tmp_path / "cal.csv"),
    }
    again = PredictedProperties(**options).run(model).to_pandas()
    assert again.loc[0, "count_disagreement"] == 0 and again.loc[0, "count"] == pytest.approx(
        value, rel=1e-3
    )
    (tmp_path / "few.csv").write_text("smiles,count\nCC,1\n")
    with pytest.raises(DataError, match="1 labels of 'count'; calibration needs at least 20"):
        PredictedProperties(files=options["files"], calibrate=tmp_path / "few.csv").run(model)


def test_tables_of_users_come_back_whole(store, learnt, tmp_path):
    rows = ["A-1,N#Cc1ccccc1,1.5,x", "A-2,OCC,2.5,y", "A-3,C[C@H](N)C(=O)O,3.5,z"]
    (tmp_path / "mine.csv").write_text("Compound ID,SMILES,count,assay\n" + "\n".join(rows) + "\n")
    model = Model.load(learnt.path)
    result = PredictedProperties(files=tmp_path / "mine.csv").run(model)
    written = pd.read_csv(result.save(tmp_path / "out.csv"))
    assert written["Compound ID"].tolist() == ["A-1", "A-2", "A-3"] == written["name"].tolist()
    assert written["smiles"].tolist() == ["N#Cc1ccccc1", "OCC", "C[C@H](N)C(=O)O"]
    assert written["canonical_smiles"].tolist() == ["N#Cc1ccccc1", "CCO", "C[C@H](N)C(=O)O"]
    assert written["count_given"].tolist() == [1.5, 2.5, 3.5] and written["assay"].tolist() == [
        *"xyz"
    ]
    assert len(written.select_dtypes("number").dropna()) == 3
    text = "smiles\nCC(=O)Nc1ccc(O)cc1.Cn1cnc2c1c(=O)n(C)c(=O)n2C\n"
    (tmp_path / "mixture.csv").write_text(text)
    frame = PredictedProperties(files=tmp_path / "mixture.csv").run(model).to_pandas()
    assert "mixture" in frame.loc[0, "problem"] and np.isfinite(frame.loc[0, "count"])


def test_one_odd_row_of_a_calibration_stops_or_is_skipped(store, learnt, tmp_path):
    labelled = [
        f"{r['smiles']},{r['label'][0]}"
        for name in ("validation", "test")
        for r in store.split(name)
        if np.isfinite(r["label"][0])
    ]
    (tmp_path / "cal.csv").write_text("\n".join(["smiles,count", "C(C,1", *labelled, ""]))
    (tmp_path / "new.csv").write_text("smiles\nCCO\n")
    options = {"files": tmp_path / "new.csv", "calibrate": tmp_path / "cal.csv"}
    model = Model.load(learnt.path)
    with pytest.raises(DataError, match="cal.csv:2: 'C.C' is no valid SMILES"):
        PredictedProperties(**options).run(model)
    result = PredictedProperties(**options, on_error="skip").run(model)
    assert [reject["line"] for reject in result.about["rejected"]] == [2]


def test_only_property_checkpoints_predict_properties(pretrained, tmp_path):
    with pytest.raises(ConfigError, match="was trained for PredictDescriptors, not for properties"):
        PredictedProperties(files=()).run(Model.load(pretrained.path))


def test_conformal_intervals_cover():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(300):
        width = conformal_width(np.abs(rng.standard_t(3, 50)), 0.9)
        covered.append((np.abs(rng.standard_t(3, 200)) <= width).mean())
    assert 0.88 < np.mean(covered) < 0.93
