"""The laws of DNA-BERTs hold on sound models and fail on broken ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sciforge.core.data.sampling import EVALUATE, generator
from sciforge.core.domain import seeded_model
from sciforge.core.training.model import Model
from sciforge.genomes import Classify, DnaBertConfig, KmerCodec
from sciforge.genomes.data.codec import torch_kmer_ids
from sciforge.genomes.evaluation import laws
from sciforge.genomes.evaluation.laws import LAWS
from sciforge.genomes.model.dna_bert import DnaBert
from sciforge.genomes.objectives import sequence_labels

CODEC = KmerCodec(k=3)
TINY = DnaBertConfig(width=16, depth=1, heads=2, hidden=32)
HEADED = Classify(classes=("a", "b", "c"), length=130, bins=3)


def sound(codec=CODEC, kind=DnaBert, seed=0):
    """A model with a classification head whose scores differ between sequences (fresh ones are
    all zero).
    """
    model = seeded_model(TINY, codec, (), seed)
    model.__class__ = kind
    HEADED.attach(model)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.heads["class"].parameters():
            parameter.normal_(std=0.3, generator=rng)
    return model.double().eval()


def holds(name, model, codec=CODEC, seed=0):
    violation, tolerance = LAWS[name](model, codec, generator(seed, EVALUATE, 1))
    return violation <= tolerance


@pytest.mark.parametrize("codec", [CODEC, KmerCodec(k=4, stride=3), KmerCodec(k=1)], ids=str)
@pytest.mark.parametrize("name", LAWS)
def test_every_law_holds(name, codec):
    # fresh, without heads
    assert holds(name, seeded_model(TINY, codec, (), 1).double().eval(), codec)
    assert all(holds(name, sound(codec), codec, seed) for seed in range(3))


def test_check_runs_every_law_on_a_trained_checkpoint(tiny):
    results = Model.load(tiny.checkpoint.path, device="cpu").check()
    assert [result.name for result in results] == list(LAWS)
    assert all(result.holds and result.summary.endswith(".") for result in results)


class IgnoresLengths(DnaBert):
    def forward(self, batch, **options):
        full = torch.full_like(batch["lengths"], batch["ids"].shape[1])
        return super().forward({**batch, "lengths": full}, **options)


class LooksAtItsNeighbours(DnaBert):
    def forward(self, batch, **options):
        return super().forward(batch, **options) + self.embedding(batch["ids"]).mean()


class SeesCase(DnaBert):
    def forward(self, batch, **options):
        return super().forward(batch, **options) + (batch["bases"] & 8).double().mean()


class LooksUnderMasks(DnaBert):
    def forward(self, batch, **options):
        return super().forward(
            {**batch, "ids": torch_kmer_ids(batch["bases"], self.k, self.stride)}, **options
        )


BROKEN = [
    ("padding", IgnoresLengths),
    ("padding", LooksAtItsNeighbours),
    ("batch-mates", LooksAtItsNeighbours),
    ("soft-mask", SeesCase),
    ("masks-hide", LooksUnderMasks),
]


@pytest.mark.parametrize("name, kind", BROKEN)
def test_a_broken_model_breaks_the_law(name, kind):
    assert not holds(name, sound(kind=kind))


@pytest.mark.parametrize("end", [0, -1])
def test_masks_that_miss_one_token_of_a_span_break_the_law(monkeypatch, end):
    def leaky(*args, **options):
        masks = draw(*args, **options)
        shown = masks.masked_T.copy()
        shown[np.flatnonzero(masks.masked_T)[end]] = False
        return replace(masks, masked_T=shown)

    draw = laws.draw_masks
    monkeypatch.setattr(laws, "draw_masks", leaky)
    assert not holds("masks-hide", sound())


def test_an_id_map_that_forgets_to_complement_breaks_the_law(monkeypatch):
    monkeypatch.setattr(laws, "reverse_complement_ids", lambda k: np.arange(4**k + 5))
    assert not holds("reverse-complement", sound())


def test_scores_that_are_no_probabilities_break_the_law(monkeypatch):
    monkeypatch.setattr(
        Classify, "predict", lambda self, model, batch: {"probability": self.scores(model, batch)}
    )
    assert not holds("probabilities", sound())


def test_an_average_over_one_strand_breaks_the_law(monkeypatch):
    monkeypatch.setattr(sequence_labels, "reversed_batch", lambda batch, model: batch)
    assert not holds("strand-free", sound())


def test_a_net_of_nan_breaks_the_law():
    model = sound()
    with torch.no_grad():
        model.embedding.bases.fill_(torch.nan)
    assert not holds("padding", model) and not holds("masks-hide", model)
