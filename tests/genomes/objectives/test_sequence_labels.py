"""Fine-tuning objectives: strands, solved heads, numbers, tracks, and hostile labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sciforge.core.data.sampling import CORRUPT, generator
from sciforge.core.data.store import Store, prepare
from sciforge.core.domain import seeded_model
from sciforge.core.training.loop import train
from sciforge.core.training.model import Model
from sciforge.core.training.run import Hardware, Run, Schedule
from sciforge.errors import DataError
from sciforge.genomes import Classify, DnaBertConfig, KmerCodec
from sciforge.genomes.data.annotated_windows import Tracks
from sciforge.genomes.data.genome_windows import GenomeWindows
from sciforge.genomes.data.labelled_sequences import Sequences
from sciforge.genomes.data.sequences import as_letters, reverse_complement
from sciforge.genomes.objectives.base_tags import TagBases
from sciforge.genomes.objectives.replaced_kmers import ReplacedKmers
from sciforge.genomes.objectives.sequence_labels import Regress, reversed_batch

CODEC = KmerCodec(k=4, stride=2)
TINY = DnaBertConfig(width=16, depth=1, heads=2, hidden=32)
MOTIF = "TATAATGG"


def letters(rng, length):
    return "".join(rng.choice(list("ACGT"), length))


@pytest.fixture(scope="module")
def motifs(tmp_path_factory):
    """A task that only the place and presence of a motif decide; numbers count copies of it."""
    rng = np.random.default_rng(1)
    rows = []
    for n in range(160):
        bases = letters(rng, 60)
        if n % 2:
            bases = bases[:20] + MOTIF + bases[28:]
        rows.append(f"{bases}\t{'yes' if n % 2 else 'no'}\t{5 * (n % 2) + 100}")
    folder = tmp_path_factory.mktemp("motifs")
    (folder / "t.tsv").write_text("sequence\tlabel\tnumber\n" + "\n".join(rows) + "\n")
    classes = prepare(Sequences(files=(folder / "t.tsv",)), folder / "classes")
    numbers = prepare(
        Sequences(files=(folder / "t.tsv",), label_column="number", numeric=True),
        folder / "numbers",
    )
    return classes, numbers


def run_of(store, out, objective, steps=1, rate=0.0):
    schedule = Schedule(steps=steps, batch=8, lr=rate, kind="step")
    hardware = Hardware(device="cpu", precision="float32", threads=1)
    return Run(
        data=store.path,
        out=out,
        model=TINY,
        codec=CODEC,
        objective=objective,
        schedule=schedule,
        hardware=hardware,
    )


def test_the_solved_head_learns_before_any_step(motifs, tmp_path):
    checkpoint = train(run_of(motifs[0], tmp_path / "run", Classify(bins=3)))
    found = Model.load(checkpoint.path).evaluate(motifs[0], split="test")
    assert found["mcc"] > 0.8 and found["collapsed"] == 0
    head = checkpoint.weights()
    assert head["heads.class.tree_weight"] > 0 and head["heads.class.weight_CF"].abs().max() > 0


def test_solved_heads_survive_resume_and_other_seeds_differ(motifs, tmp_path):
    run = run_of(motifs[0], tmp_path / "a", Classify(bins=3), steps=4, rate=1e-3)
    straight = train(run).weights()
    run = replace(run, out=tmp_path / "b", schedule=replace(run.schedule, save_every=2))
    train(run)
    again = train(replace(run, out=tmp_path / "b"), resume=True).weights()
    assert all(torch.equal(straight[name], again[name]) for name in straight)
    other = train(replace(run, out=tmp_path / "c", seed=5)).weights()
    assert any(not torch.equal(straight[name], other[name]) for name in straight)


def test_numbers_come_back_in_their_own_unit(motifs, tmp_path):
    checkpoint = train(run_of(motifs[1], tmp_path / "run", Regress(bins=3)))
    metrics = Model.load(checkpoint.path).evaluate(motifs[1], split="test")
    assert metrics["rmse"] < 1.5 and metrics["pearson"] > 0.9  # labels are 100 and 105
    assert checkpoint.objectives[0].mean == pytest.approx(102.5, abs=0.5)


def test_regression_refuses_labels_without_numbers(motifs, tmp_path):
    with pytest.raises(DataError, match="number|value"):
        train(run_of(motifs[0], tmp_path / "run", Regress()))


def test_an_unknown_label_is_named(motifs):
    objective = Classify(classes=("a", "b"), length=60)
    with pytest.raises(DataError, match="'yes' is none of a, b"):
        objective.prepare(
            {"bases": np.zeros(60, np.uint8), "label": "yes"}, CODEC, generator(0, CORRUPT), True
        )


def test_a_batch_read_backwards_is_the_batch_of_reverse_complements():
    rng = np.random.default_rng(0)
    objective = Classify(classes=("a", "b"), length=50)
    sequences = [rng.integers(0, 5, n).astype(np.uint8) for n in (50, 31, 44)]
    model = seeded_model(TINY, CODEC, (objective,), 0)
    examples = [
        objective.prepare({"bases": s}, CODEC, generator(0, CORRUPT), False) for s in sequences
    ]
    turned = [
        objective.prepare({"bases": reverse_complement(s)}, CODEC, generator(0, CORRUPT), False)
        for s in sequences
    ]
    ours, expected = reversed_batch(CODEC.collate(examples), model), CODEC.collate(turned)
    assert torch.equal(ours["bases"], expected["bases"])
    for row, length in enumerate(expected["lengths"].tolist()):
        assert torch.equal(ours["ids"][row, :length], expected["ids"][row, :length])


def test_strand_free_predictions_do_not_know_the_strand(motifs, tmp_path):
    checkpoint = train(run_of(motifs[0], tmp_path / "run", Classify(bins=3, strand_free=True)))
    predictor = Model.load(checkpoint.path)
    sequences = [np.asarray(record["bases"]) for record in motifs[0].split("test")][:8]
    forward = predictor.outputs({"bases": s} for s in sequences)["probability"]
    backward = predictor.outputs({"bases": reverse_complement(s)} for s in sequences)["probability"]
    assert np.abs(forward - backward).max() < 1e-6
    assert np.abs(forward.sum(1) - 1).max() < 1e-6


def genbank(folder, rng):
    """One contig in which genes are AT-poor, and its GFF3."""
    genes = [(k * 400 + 100, k * 400 + 250) for k in range(40)]
    bases = np.array(list("AT"))[rng.integers(0, 2, 16_000)]
    gff = ["##gff-version 3"]
    for start, end in genes:
        bases[start:end] = np.array(list("GC"))[rng.integers(0, 2, end - start)]
        gff.append(f"c\t.\tCDS\t{start + 1}\t{end}\t.\t+\t0\tID=g{start}")
    (folder / "g.fa").write_text(">c\n" + "".join(bases) + "\n")
    (folder / "g.gff").write_text("\n".join(gff) + "\n")
    return genes


def test_tracks_name_the_annotated_bases_and_can_be_learnt(tmp_path):
    genes = genbank(tmp_path, np.random.default_rng(0))
    preparer = Tracks(
        genome=tmp_path / "g.fa", annotation=tmp_path / "g.gff", length=100, block_bp=1000
    )
    store = prepare(preparer, tmp_path / "tracks")
    marked = {
        int(r["start"]) + int(i)
        for r in (store[n] for n in range(len(store)))
        for i in np.flatnonzero(r["track"])
    }
    starts = {int(store[n]["start"]) for n in range(len(store))}
    expected = {at for start, end in genes for at in range(start, end) if at // 100 * 100 in starts}
    assert marked == expected and store.meta["track_classes"] == ["background", "CDS"]
    checkpoint = train(run_of(store, tmp_path / "run", TagBases(), steps=60, rate=5e-3))
    assert Model.load(checkpoint.path).evaluate(store, split="test")["accuracy"] > 0.95


def test_a_replaced_base_is_always_one_that_was_hidden(tiny):
    objective = ReplacedKmers(length=48, mask_rate=0.3)
    codec = KmerCodec(k=3)
    model = seeded_model(TINY, codec, (objective,), 0)
    records = GenomeWindows(tiny.store, "train", 48)
    examples = [
        objective.prepare(records[i], codec, generator(0, CORRUPT, 0, i), True) for i in range(8)
    ]
    batch = codec.collate(examples)
    filled = objective._fill(model.heads["generator"], batch)
    changed = filled != batch["bases"]
    assert changed.any() and not (changed & ~batch["unseen"]).any()
    replaced, logits = objective._detect(model, batch)
    assert replaced.shape == logits.shape and (replaced.any(1) == changed.any(1)).all()
    # the noise is in the example
    assert torch.equal(filled, objective._fill(model.heads["generator"], batch))


def test_replaced_token_detection_trains_generator_and_net(tiny, tmp_path):
    run = replace(
        tiny.pretraining,
        out=tmp_path / "run",
        objective=ReplacedKmers(length=48, mask_rate=0.3),
        schedule=Schedule(steps=3, batch=8, lr=1e-3),
        hardware=Hardware(device="cpu", precision="float32", threads=1),
    )
    checkpoint = train(run)
    before = seeded_model(
        checkpoint.model_config, checkpoint.codec, checkpoint.objectives, run.seed
    ).state_dict()
    after = checkpoint.weights()
    for part in ("heads.generator.encoder", "heads.replaced", "encoder.blocks"):
        assert any(not torch.equal(before[n], after[n]) for n in after if n.startswith(part)), part


def test_letters_and_codes_agree():
    assert as_letters(reverse_complement(np.array([0, 1, 2, 3], np.uint8))) == "ACGT"


def test_store_lengths_are_those_of_the_records(motifs):
    store = Store.open(motifs[0].path)
    assert store.lengths("bases").tolist() == [len(store[i]["bases"]) for i in range(len(store))]
