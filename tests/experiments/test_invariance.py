"""What augmentations do: invariant nets do not move, and a label that is the nuisance is seen to
be erased.
"""

import json
import warnings

import numpy as np
import pytest
from tiny_runs import make_tiny

from sciforge import api
from sciforge.cli import main as cli
from sciforge.core.data.store import Store, prepare
from sciforge.core.domain import get_domain
from sciforge.core.training.run import Schedule
from sciforge.errors import ConfigError
from sciforge.experiments.invariance import run as invariance
from sciforge.experiments.invariance.label_probe import explain, indicators, lost
from sciforge.experiments.invariance.run import measure
from sciforge.experiments.invariance.spec import Invariance
from sciforge.genomes import Classify
from sciforge.genomes.data.augmentations import phases, strand_bias
from sciforge.genomes.data.labelled_sequences import Sequences
from sciforge.genomes.data.sequences import reverse_complement


def sequences(folder, kind: str) -> Store:
    """Return labelled sequences whose label is their strand (more G than C) or their composition
    (more GC than AT).
    """
    rng, rows = np.random.default_rng(0), []
    for n in range(150):
        shares = {"strand": [0.2, 0.15, 0.45, 0.2], "composition": [0.15, 0.35, 0.35, 0.15]}[kind]
        if n % 2:
            shares = shares[::-1] if kind == "strand" else [0.35, 0.15, 0.15, 0.35]
        rows.append(
            f"{''.join(rng.choice(list('ACGT'), 60, p=shares))}\t{'plus' if n % 2 else 'minus'}"
        )
    table = folder / f"{kind}.tsv"
    table.write_text("sequence\tlabel\n" + "\n".join(rows) + "\n")
    return prepare(Sequences(files=(table,), validation_share=0.1, test_share=0.0), folder / kind)


@pytest.fixture(scope="module")
def strands(tmp_path_factory) -> Store:
    return sequences(tmp_path_factory.mktemp("strands"), "strand")


def spec_of(store: Store, out, **changes) -> Invariance:
    return Invariance(data=store.path, out=out, permutations=40, **changes)


@pytest.mark.parametrize("domain", ["atoms", "molecules"])
def test_an_invariant_net_does_not_move(domain, tmp_path, monkeypatch):
    monkeypatch.setattr(invariance, "MIN_RECORDS", 10)
    tiny = make_tiny(domain, tmp_path)
    split = "validation" if domain == "atoms" else "train"
    found = measure(
        tiny.checkpoint.path, spec_of(tiny.labelled, tmp_path / "out", split=split), "cpu"
    )
    assert {effect.name for effect in found.effects} == set(get_domain(domain).augmentations)
    for effect in found.effects:
        assert (
            effect.changed == found.records
            and effect.shift.value < 1e-9
            and effect.verdict() == "invariant"
        )
        assert all(moved.value < 1e-9 for moved in effect.prediction.values())
        for label in effect.labels:
            assert (
                label.embedding_after.value == pytest.approx(label.embedding.value, abs=1e-6)
                and not label.erased
            )
    if domain == "atoms":
        assert found.effects[0].prediction.keys() == {"energy_eV"}
    else:
        assert (
            found.effects[0].labels[0].label == "size"
            and found.effects[0].labels[0].embedding.informative
        )
    assert not found.warnings


def test_a_label_that_is_the_strand_is_erased_by_the_other_strand(tiny, strands, tmp_path):
    spec = spec_of(strands, tmp_path / "out", split="train")
    found = measure(tiny.checkpoint.path, spec, "cpu")
    turned, shifted = found.effects
    assert (
        turned.verdict(turned.labels[0]) == "erases the label"
        and turned.labels[0].nuisance.value > 0.8
    )
    assert turned.labels[0].nuisance_after.value < 0.1 and turned.shift.value > 0.01
    assert shifted.verdict(shifted.labels[0]) != "erases the label"
    assert (
        len(found.warnings) == 1 and "reverse-complement erases this label" in found.table().text()
    )
    assert (tmp_path / "out" / "invariance.png").stat().st_size > 10_000
    written = json.loads((tmp_path / "out" / "invariance.json").read_text())
    assert written["augmentations"][0]["labels"][0]["verdict"] == "erases the label"
    assert "erases this label" in found._repr_html_()
    with pytest.raises(ConfigError, match="exists already"):
        measure(tiny.checkpoint.path, spec, "cpu")


def test_a_label_that_both_strands_share_is_kept(tiny, tmp_path):
    found = measure(
        tiny.checkpoint.path,
        spec_of(sequences(tmp_path, "composition"), tmp_path / "out", split="train"),
    )
    (label,) = found.effects[0].labels
    assert label.embedding.informative and not label.erased and not found.warnings


def test_training_warns_of_a_label_it_would_erase(tiny, strands, tmp_path):
    run = {
        "data": strands.path,
        "init": tiny.checkpoint.path,
        "schedule": Schedule(steps=1, batch=4, kind="step"),
    }
    blind, seeing = (
        Classify(strand_free=True, warm_start=False, bins=3),
        Classify(warm_start=False, bins=3),
    )
    with pytest.warns(UserWarning, match="erases this label"):
        api.train(api.Run(objective=blind, out=tmp_path / "blind", **run))
    other = sequences(tmp_path, "composition")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        invariance.warn_before_training(api.Run(objective=seeing, out=tmp_path, **run))
        invariance.warn_before_training(
            api.Run(objective=blind, out=tmp_path, **{**run, "data": other.path})
        )


def test_a_strand_free_prediction_does_not_move_though_the_embedding_does(tiny, fit, tmp_path):
    trained = fit(tiny.finetuning, objective=Classify(bins=3, warm_start=False, strand_free=True))
    spec = spec_of(
        tiny.labelled, tmp_path / "out", split="train", augmentations=("reverse-complement",)
    )
    (found,) = measure(trained.path, spec, "cpu").effects
    assert (
        found.shift.value > 1e-3
        and found.prediction["probability"].value < 1e-9
        and found.verdict() == "moves"
    )


def test_what_the_strand_scrambles_changes_its_sign_and_a_shift_turns_the_phases():
    bases = np.random.default_rng(1).integers(0, 5, 61).astype(np.uint8)
    there, back = ({"bases": strand} for strand in (bases, reverse_complement(bases)))
    assert (
        np.allclose(strand_bias(back), -strand_bias(there))
        and np.abs(strand_bias(there)).min() >= 0
    )
    whole = {"bases": np.tile(bases[:3], 20)}
    moved = {"bases": np.tile(np.roll(bases[:3], -1), 20)}
    assert np.allclose(np.roll(phases(whole).reshape(3, 4), -1, 0), phases(moved).reshape(3, 4))


def test_atoms_turn_as_a_whole(tmp_path):
    tiny = make_tiny("atoms", tmp_path)
    record = {**tiny.store[0], "stress_eV_A3": np.arange(6.0)}
    augmentation = get_domain("atoms").augmentations["rotation"]
    turned = augmentation.apply(record, np.random.default_rng(0))
    work = [np.sum(np.asarray(r["forces_eV_A"]) * r["pos_A"]) for r in (record, turned)]
    assert work[0] == pytest.approx(work[1]) and not np.allclose(turned["pos_A"], record["pos_A"])
    assert turned["stress_eV_A3"][:3].sum() == pytest.approx(3.0)  # the trace does not turn
    assert not np.allclose(augmentation.nuisance(turned), augmentation.nuisance(record))


def test_a_reader_finds_what_is_there_and_nothing_else():
    rng = np.random.default_rng(0)
    x_NF, noise_NF = rng.normal(size=(120, 3)), rng.normal(size=(120, 3))
    number = indicators(x_NF @ [1.0, -2.0, 0.5] + rng.normal(size=120))
    classes = indicators(np.where(x_NF[:, 0] > 0, "yes", "no"))
    for target in (number, classes):
        told, silent = explain([x_NF], target), explain([noise_NF], target)
        assert told.informative and told.low < told.value < told.high and 0.4 < told.value < 1
        assert silent.value < 0.05 and lost(told, silent)[0] > 0
        assert explain([x_NF, x_NF], target).value == pytest.approx(told.value)
    found = [
        explain([rng.normal(size=(60, 4))], rng.normal(size=(60, 1)), s, 100).informative
        for s in range(40)
    ]
    assert sum(found) <= 5  # 2.5 % of them by chance


def test_what_cannot_be_measured_is_one_line(tiny, strands, tmp_path):
    heat = make_tiny("heat", tmp_path)
    with pytest.raises(ConfigError, match="heat names no augmentations"):
        measure(heat.checkpoint.path, spec_of(heat.labelled, tmp_path / "out"))
    with pytest.raises(ConfigError, match="domain heat, the checkpoint of genomes"):
        measure(tiny.checkpoint.path, spec_of(heat.labelled, tmp_path / "out"))
    with pytest.raises(ConfigError, match="did you mean.*shift"):
        measure(
            tiny.checkpoint.path, spec_of(tiny.labelled, tmp_path / "out", augmentations=("shfit",))
        )
    with pytest.raises(ConfigError, match="0 test records"):
        measure(tiny.checkpoint.path, spec_of(strands, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_windows_without_labels_and_the_command_line(tiny, tmp_path, capsys):
    argv = [
        "invariance",
        str(tiny.checkpoint.path),
        "--data",
        str(tiny.store.path),
        "--out",
        str(tmp_path / "out"),
    ]
    assert (
        cli.main(
            [*argv, "--max-records", "20", "--augmentations", "shift", "--device", "cpu", "--json"]
        )
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert (
        found["augmentations"][0]["verdict"] == "moves" and "no label information" in found["note"]
    )
    assert found["records"] <= 20 and len(found["augmentations"]) == 1
