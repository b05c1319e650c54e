"""Classical baselines, their features, and the small CNN."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sklearn.metrics import matthews_corrcoef

from sciforge.errors import ConfigError
from sciforge.genomes import Classify, KmerCodec
from sciforge.genomes.data.features import kmer_roots, reading_frames
from sciforge.genomes.data.sequences import reverse_complement
from sciforge.genomes.evaluation import baselines
from sciforge.genomes.evaluation.baselines import BASELINES
from sciforge.genomes.model.cnn import SmallCnnConfig

CODEC = KmerCodec(k=1)
CLASSES = ("no", "yes")
LEARNERS = [name for name in BASELINES if name != "gc_only"]
SENSE = [
    a + b + c
    for a in "ACGT"
    for b in "ACGT"
    for c in "ACGT"
    if a + b + c not in ("TAA", "TAG", "TGA")
]


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
    options = baselines.boosting_options
    monkeypatch.setattr(
        baselines, "boosting_options", lambda labels: {**options(labels), "max_iter": 30}
    )


@dataclass(frozen=True)
class Task:
    """Train and test records."""

    train: list
    test: list

    def mcc(self, name, seed=0, **options):
        """Return a baseline's correlation on the test records."""
        objective = Classify(classes=CLASSES, **options)
        found = BASELINES[name](objective, self.train, self.test, seed)["probability"]
        assert found.shape == (len(self.test), 2) and found.dtype == np.float32
        assert np.abs(found.sum(1) - 1).max() < 1e-5 and (found >= 0).all()
        return matthews_corrcoef(
            [record["label"] == "yes" for record in self.test], found.argmax(1)
        )


def codes(text):
    return np.array(["ACGT".index(c) for c in text], np.uint8)


def drawn(rng, probabilities, length=60):
    return rng.choice(4, length, p=probabilities).astype(np.uint8)


def task(make, num_train=80, num_test=100, seed=0):
    """Return a task of records `make(rng, positive)`, half of them positive."""
    rng = np.random.default_rng(seed)
    rows = [
        {"bases": make(rng, bool(n % 2)), "label": CLASSES[n % 2]}
        for n in range(num_train + num_test)
    ]
    return Task(rows[:num_train], rows[num_train:])


def composed(rng, positive):
    """Equal GC on both sides: A and G against C and T."""
    return drawn(rng, [0.4, 0.1, 0.4, 0.1] if positive else [0.1, 0.4, 0.1, 0.4])


def shifted(rng, positive):
    return drawn(rng, [0.15, 0.35, 0.35, 0.15] if positive else [0.35, 0.15, 0.15, 0.35])


def pure_noise(rng, positive):
    return drawn(rng, [0.25] * 4)


@pytest.mark.parametrize("name", LEARNERS)
def test_separable_data_are_learnt(name):
    assert task(composed).mcc(name) > 0.9


@pytest.mark.parametrize("name", BASELINES)
def test_random_labels_are_not(name):
    assert abs(task(pure_noise, num_test=400).mcc(name)) < 0.2


def test_gc_alone_is_chance_on_matched_and_good_on_shifted_data():
    assert abs(task(composed, num_test=400).mcc("gc_only")) < 0.2
    assert task(shifted).mcc("gc_only") > 0.9


@pytest.mark.parametrize("name", ["kmer_onehot_lr", "gradient_boosting"])
def test_a_place_is_seen_where_composition_says_nothing(name):
    def placed(rng, positive):
        bases = drawn(rng, [0.25] * 4)
        bases[30 if positive else 10 : 34 if positive else 14] = codes("GGCC")
        return bases

    assert task(placed).mcc(name) > 0.9 and task(placed).mcc("kmer_lr") < 0.5


@pytest.mark.parametrize("name", ["frames_lr", "frames_boosting"])
def test_an_open_frame_is_seen_where_places_say_nothing(name):
    def framed(rng, positive):
        if not positive:
            return drawn(rng, [0.25] * 4, 240)
        text = "".join(rng.choice(SENSE, 80))
        return codes(text) if rng.random() < 0.5 else reverse_complement(codes(text))

    assert task(framed, 120).mcc(name) > 0.75


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("strand_free", [False, True])
def test_unequal_lengths_work(name, strand_free):
    rng = np.random.default_rng(0)
    whole = task(composed)
    parts = [
        [{**r, "bases": r["bases"][: rng.integers(40, 61)]} for r in rows]
        for rows in (whole.train, whole.test)
    ]
    mixed = Task(*parts)
    found = mixed.mcc(name, strand_free=strand_free)
    # Read on both strands, A and G are no more than C and T, nor are they by GC.
    blind = name == "gc_only" or strand_free
    assert (found < 0.6) if blind else (found > 0.85)


@pytest.mark.parametrize("name", BASELINES)
def test_very_short_and_unknown_sequences_do_not_crash(name):
    whole = task(shifted, 20, 4)
    odd = [
        {"bases": np.array(b, np.uint8), "label": "no"}
        for b in ([0], [4, 4, 4], [1, 2, 3, 4, 0, 4, 9, 1])
    ]
    mixed = Task(whole.train + odd, whole.test + odd)
    probability_NC = BASELINES[name](Classify(classes=CLASSES), mixed.train, mixed.test, 0)[
        "probability"
    ]
    assert probability_NC.shape == (len(mixed.test), 2)
    assert probability_NC.sum(1) == pytest.approx(np.ones(len(mixed.test)), abs=1e-5)


@pytest.mark.parametrize("name", BASELINES)
def test_strand_free_predictions_do_not_know_the_strand(name):
    data, objective = task(shifted), Classify(classes=CLASSES, strand_free=True)
    turned = [{**record, "bases": reverse_complement(record["bases"])} for record in data.test]
    forward, backward = (
        BASELINES[name](objective, data.train, t, 0)["probability"] for t in (data.test, turned)
    )
    assert np.abs(forward - backward).max() < 1e-6


@pytest.mark.parametrize("name", BASELINES)
def test_classes_missing_from_the_few_labels_do_not_crash(name):
    data, objective = task(shifted, 12, 6), Classify(classes=("never", *CLASSES))
    two = BASELINES[name](objective, data.train, data.test, 0)["probability"]
    assert two.shape == (6, 3) and (two[:, 0] == 0).all() and np.abs(two.sum(1) - 1).max() < 1e-5
    one = BASELINES[name](objective, data.train[1::2], data.test, 0)["probability"]
    assert (one == [0, 0, 1]).all()
    rare = BASELINES[name](objective, [*data.train[1::2], data.train[0]], data.test, 0)[
        "probability"
    ]
    assert np.isfinite(rare).all()


@pytest.mark.parametrize("name", ["kmer_lr", "frames_boosting"])
def test_a_baseline_is_a_function_of_its_seed(name):
    data, objective = task(pure_noise), Classify(classes=CLASSES)
    once, again = (
        BASELINES[name](objective, data.train, data.test, 3)["probability"] for _ in range(2)
    )
    assert (once == again).all()


def test_kmers_are_counted_and_unknown_bases_are_not():
    plain, broken = kmer_roots([codes("ACGTAC"), np.array([0, 1, 4, 0, 1], np.uint8)])
    assert (plain[:4] ** 2).round().tolist() == [2, 2, 1, 1]
    assert round(float(plain[4 + 1] ** 2)) == 2 and round(float(broken[4 + 1] ** 2)) == 2  # AC
    assert [round(float((row[20:84] ** 2).sum())) for row in (plain, broken)] == [4, 0]


def test_reading_frames_see_an_open_frame_on_the_minus_strand():
    rng = np.random.default_rng(0)
    gene = codes("TAA" + "ATG" + "".join(rng.choice(SENSE, 98)) + "TAA" + "C")
    there, back = reading_frames([gene, reverse_complement(gene)])
    runs = there[:24].reshape(2, 3, 4), back[:24].reshape(2, 3, 4)  # strand, frame, kind of run
    assert runs[0][0, 0].tolist() == [99, 0, 0, 99]
    assert runs[1][1, 0].tolist() == [99, 0, 0, 99]
    assert (runs[0][0] == runs[1][1]).all() and (runs[0][1] == runs[1][0]).all()
    assert there[-1] > 30 and back[-1] == -there[-1]  # which strand leads
    assert len(there) == 43 and there[24:30].max() == back[24:30].max() == 99


def test_reading_frames_of_very_short_sequences_are_finite():
    assert np.isfinite(reading_frames([codes("A" * n) for n in range(1, 9)])).all()


@pytest.fixture(scope="module")
def cnn():
    torch.manual_seed(0)
    return SmallCnnConfig(width=8, kernels=(5, 3)).build(CODEC).eval()


def states(model, *sequences):
    """Return the hidden states of sequences run as one batch, each without its padding."""
    batch = CODEC.collate([{"bases": torch.from_numpy(s)} for s in sequences])
    with torch.no_grad():
        found = model(batch)
    assert all((row[len(s) :] == 0).all() for row, s in zip(found, sequences, strict=True))
    return [row[: len(s)] for row, s in zip(found, sequences, strict=True)]


def test_padding_and_batch_mates_do_not_change_the_cnn(cnn):
    rng = np.random.default_rng(0)
    short, middle, long = (rng.integers(0, 5, n).astype(np.uint8) for n in (7, 20, 90))
    (alone,) = states(cnn, short)
    for mates in ([middle], [long], [long, middle]):
        assert torch.allclose(states(cnn, short, *mates)[0], alone, atol=1e-6)
    (dropped,) = states(cnn, np.array([4, 4, 4], np.uint8))
    assert dropped.shape == (3, 8) and torch.isfinite(dropped).all()


def test_the_cnn_reads_single_bases_and_has_no_language_head(cnn):
    with pytest.raises(ConfigError, match="codec.k 1"):
        SmallCnnConfig().build(KmerCodec(k=3))
    with pytest.raises(ConfigError, match="odd"):
        SmallCnnConfig(kernels=(4,))
    with pytest.raises(ConfigError, match="dropout"):
        SmallCnnConfig(dropout=1.0)
    with pytest.raises(ConfigError, match="no language head"):
        cnn.base_logits(torch.zeros(1, 8))
