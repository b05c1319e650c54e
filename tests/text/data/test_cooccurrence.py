"""Starting from counts: frequencies, company, and what a model that was trained keeps; the laws
on checkpoints.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_runs import Tiny, make_tiny

from sciforge.core.training.loop import train
from sciforge.core.training.model import Model
from sciforge.core.training.run import Schedule
from sciforge.text.data.cooccurrence import counted, start_from_counts, vectors
from sciforge.text.model.bert import BertConfig

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Tiny:
    return make_tiny("text", tmp_path_factory.mktemp("counts"))


def test_the_bias_is_the_frequency_and_company_makes_neighbours():
    rng = np.random.default_rng(0)
    day, night, rest = [1, 2, 3], [4, 5, 6], [7, 8, 9]
    rows = [
        np.concatenate([rng.permutation(day if n % 2 else night), rng.permutation(rest)])
        for n in range(400)
    ]
    model = BertConfig(width=8, depth=1, heads=2, hidden=16).build
    bert = model(type("Codec", (), {"num_tokens": 11, "length": 16}))
    random = bert.embeddings.word.weight[[0, 10]].clone()
    assert start_from_counts(bert, rows, seed=0) == {"counted_tokens": 2400.0}
    total, near = counted(rows, 11)
    assert total.tolist() == [0, *[200] * 6, *[400] * 3, 0]
    assert bert.words.bias.detach().exp().sum().item() == pytest.approx(1.0, rel=1e-5)
    assert bert.words.bias[7].exp().item() == pytest.approx(401 / 2411, rel=1e-5)
    assert torch.equal(bert.embeddings.word.weight[[0, 10]], random)  # never seen
    unit = torch.nn.functional.normalize(bert.embeddings.word.weight[1:7].detach(), dim=1)
    alike = unit @ unit.T
    assert alike[:3, :3].min() > alike[:3, 3:].max()
    assert np.array_equal(vectors(near, 8, 0), vectors(near, 8, 0))


def test_a_trained_model_keeps_what_the_field_does_not_say(tiny):
    model = tiny.checkpoint.build()
    before = model.embeddings.word.weight.detach().clone()
    rows = [np.array([7, 8, 9] * 40), np.array([8, 10, 7])]
    start_from_counts(model, rows, seed=0, fresh=False)
    moved = (model.embeddings.word.weight.detach() - before).abs().amax(1)
    assert moved[[5, 6, 11, 12]].max() == 0 and moved[[7, 8, 9]].min() > 0
    assert 0 < moved[10] and torch.isfinite(model.embeddings.word.weight).all()


@pytest.mark.parametrize(
    ("counts", "moves"), [("never", False), ("fresh", False), ("always", True)]
)
def test_only_always_counts_in_a_model_that_goes_on(tiny, tmp_path, counts, moves):
    objective = replace(tiny.pretraining.objective, counts=counts)
    still = Schedule(steps=1, batch=4, lr=0.0, kind="constant")
    run = replace(
        tiny.pretraining, model=None, codec=None, init=tiny.checkpoint.path, out=tmp_path / "on"
    )
    made = train(replace(run, objective=objective, schedule=still))
    moved = (made.weights()["words.bias"] - tiny.checkpoint.weights()["words.bias"]).abs().max()
    assert moved > 1e-3 if moves else moved < 1e-6  # weights are stored in float32


def test_laws_hold_on_trained_checkpoints(tiny):
    tuned = train(tiny.finetuning)
    for path in (tiny.checkpoint.path, tuned.path):
        results = Model.load(path, device="cpu").check()
        assert len(results) == 6 and all(law.holds for law in results), results


def test_a_broken_model_breaks_laws(tiny):
    predictor = Model.load(tiny.checkpoint.path, device="cpu")
    names = {}
    for name, law in predictor.domain.laws.items():
        model = tiny.checkpoint.build().double()
        run = model.encoder.forward
        model.encoder.forward = lambda x, lengths=None, only=None, layers=False, run=run: run(
            x, None, only, layers
        )
        violation, tolerance = law(model, predictor.codec, np.random.default_rng(0))
        names[name] = violation <= tolerance
    assert not names["padding"] and names["round-trip"]
