"""The quadratic pull of EWC and L2-SP against its closed form."""

import numpy as np
import pytest
import torch
from torch import nn

from sciforge.core.data import sampling
from sciforge.core.methods import regularization
from sciforge.core.methods.fisher import fisher_information
from sciforge.core.training.distributed import Engine
from sciforge.core.training.run import EWC, L2SP, Freeze, LoRA
from sciforge.errors import ConfigError

EXACT = Engine(torch.device("cpu"), "float64")


def net(classes: int, hidden: int | None = None) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        parts = (
            [nn.Linear(4, classes)]
            if hidden is None
            else [nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, classes)]
        )
        return nn.Sequential(*parts).double()


@pytest.mark.parametrize("precision", [None, 3.0])
def test_the_gradient_is_the_closed_form(precision: float | None):
    model = net(2)
    centre = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    importance = (
        None
        if precision is None
        else {name: torch.rand_like(p) * precision for name, p in centre.items()}
    )
    kind = L2SP(0.7) if precision is None else EWC(0.7)
    pull = regularization.build(kind, model, centre, importance, EXACT)
    model(torch.ones(1, 4, dtype=torch.float64)).sum().backward()
    before = {name: p.grad.clone() for name, p in model.named_parameters()}
    wanted = torch.autograd.grad(penalty(model, centre, importance, 0.7), list(model.parameters()))
    pull.add_gradient()
    for (name, p), extra in zip(model.named_parameters(), wanted, strict=True):
        assert torch.allclose(p.grad, before[name] + extra, atol=1e-14)
    assert float(pull.penalty()) == pytest.approx(
        float(penalty(model, centre, importance, 0.7).detach()), abs=1e-14
    )


def penalty(model, centre, importance, strength):
    terms = [
        ((p - centre[name]) ** 2 * (1.0 if importance is None else importance[name])).sum()
        for name, p in model.named_parameters()
    ]
    return 0.5 * strength * sum(terms)


def test_new_weights_are_free_and_a_pull_on_nothing_is_refused():
    model = net(2, hidden=3)
    centre = {name: p.detach() for name, p in model.named_parameters() if name.startswith("0.")}
    pull = regularization.build(L2SP(), model, centre, None, EXACT)
    assert {id(t.parameter) for t in pull.terms} == {id(p) for p in model[0].parameters()}
    with pytest.raises(ConfigError, match="holds nothing"):
        regularization.build(L2SP(), model, {}, None, EXACT)


@pytest.mark.parametrize("strength", [0.1, 10.0, 1e6])
def test_proximal_steps_end_at_the_minimiser(strength: float):
    """Loss a/2 (p - b)^2 and pull strength/2 F (p - c)^2 rest at (a b + strength F c) / (a +
    strength F).
    """
    a, b, c = (
        torch.tensor(v, dtype=torch.float64)
        for v in ([1.0, 4.0, 0.5], [2.0, -1.0, 0.3], [0.0, 1.0, -2.0])
    )
    importance = torch.tensor([1.0, 0.2, 3.0], dtype=torch.float64)
    p = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    pull = regularization.QuadraticPenalty(
        (regularization.Term(p, c, importance),), strength, proximal=True
    )
    optimizer = torch.optim.AdamW([p], weight_decay=0.0, betas=(0.9, 0.98))
    for step in range(4000):
        optimizer.param_groups[0]["lr"] = 0.05 * 0.997**step
        p.grad = a * (p.detach() - b)
        optimizer.step()
        pull.proximal_step(optimizer)
    wanted = (a * b + strength * importance * c) / (a + strength * importance)
    assert torch.allclose(p.detach(), wanted, atol=1e-4)


def test_fresh_heads_of_the_same_name_are_not_pulled(tiny, fit):
    """The classes differ, so the head starts anew although checkpoint and model call it the
    same.
    """
    parent = fit(tiny.finetuning, "parent", schedule={"steps": 2})
    other = parent.objectives[0].__class__(classes=("yes", "no", "maybe"), bins=3)
    found = fit(
        tiny.finetuning,
        "child",
        init=parent.path,
        objective=other,
        regularization=L2SP(1.0),
        schedule={"steps": 2},
    )
    assert found.step <= 2 and found.objectives[0].classes == ("yes", "no", "maybe")


def test_ewc_works_from_the_cached_fisher_without_data(tiny, fit, tmp_path):
    with pytest.raises(ConfigError, match="no exact Fisher"):
        fit(tiny.finetuning, regularization=EWC())
    run = tiny.pretraining
    own = fit(run, "own", schedule={"steps": 2, "evaluate_every": 0})
    made = fisher_of(own, examples=1, seed=run.seed)
    kept = own.with_file("fisher-exact.safetensors", made, {"estimator": "exact"})
    # replacing it is safe too
    again = kept.with_file("fisher-exact.safetensors", made, {"estimator": "exact"})
    assert all(
        torch.equal(again.weights("fisher-exact.safetensors")[name], made[name]) for name in made
    )
    cached = fit(tiny.finetuning, "cached", init=own.path, regularization=EWC(100.0))
    fresh = fit(
        tiny.finetuning,
        "fresh",
        init=own.path,
        regularization=EWC(100.0, data=run.data, examples=1),
    )
    for name, tensor in cached.weights().items():
        assert torch.equal(tensor, fresh.weights()[name])
    free = fit(tiny.finetuning, "free", init=own.path)
    assert drift(cached, own) < drift(free, own)


def fisher_of(checkpoint, **options):
    from sciforge.core.data.store import Store

    objective = checkpoint.objectives[0]
    data = objective.examples(Store.open(checkpoint.run.data), "train")
    return fisher_information(checkpoint.build(), objective, checkpoint.codec, data, **options)


def drift(checkpoint, parent) -> float:
    ours, theirs = checkpoint.weights(), parent.weights()
    return float(
        np.sqrt(
            sum(
                float(((ours[n] - theirs[n]) ** 2).sum())
                for n in theirs
                if n in ours and "heads" not in n
            )
        )
    )


def test_untouched_weights_stay_at_the_centre(tiny, fit):
    """Classification never uses the language head: it must not drift, and the pull must not need
    its gradient.
    """
    for pull in (None, L2SP(0.5), L2SP(0.5, step="proximal")):
        found = fit(tiny.finetuning, f"run-{pull and pull.step}", regularization=pull).weights()
        assert torch.equal(
            found["transform.weight"].float(), tiny.checkpoint.weights()["transform.weight"].float()
        )


def test_contradictions_are_refused(tiny, fit):
    with pytest.raises(ConfigError, match="LoRA"):
        fit(tiny.finetuning, finetuning=LoRA(), regularization=L2SP())
    with pytest.raises(ConfigError, match="holds nothing"):
        fit(tiny.finetuning, finetuning=Freeze(), regularization=L2SP())
    assert sampling.replay_sizes(2, 0.5) == (1, 1)
