"""The Fisher information against closed forms and brute force."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sciforge.core.domain import Categorical, Gaussian, Loss, Objective
from sciforge.core.methods.fisher import fisher_information
from sciforge.errors import ConfigError


@dataclass(frozen=True)
class Plain:
    """A codec of records that are vectors already."""

    def collate(self, examples: list) -> dict:
        return {name: torch.stack([e[name] for e in examples]) for name in examples[0]}


class Points(Objective):
    """Classes or numbers of vectors."""

    def prepare(self, record, codec, rng, training):
        return record

    def logits(self, model, batch):
        return model(batch["x"])

    def loss(self, model, batch):
        return Loss(
            F.cross_entropy(self.logits(model, batch), batch["y"], reduction="sum"),
            torch.tensor(len(batch["y"])),
        )

    def likelihood(self, model, batch):
        return Categorical(self.logits(model, batch), batch["y"])


class Numbers(Points):
    """Regression with a standard deviation of 0.5."""

    def likelihood(self, model, batch):
        mean_N = model(batch["x"])[:, 0]
        return Gaussian(mean_N, torch.full_like(mean_N, 0.5), batch["value"])


def records(num: int, classes: int, width: int = 4) -> list[dict]:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(num, width, generator=rng, dtype=torch.float64)
    y = torch.randint(classes, (num,), generator=rng)
    value = torch.randn(num, generator=rng, dtype=torch.float64)
    return [{"x": x[i], "y": y[i], "value": value[i]} for i in range(num)]


def net(classes: int, hidden: int | None = None) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        parts = (
            [nn.Linear(4, classes)]
            if hidden is None
            else [nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, classes)]
        )
        return nn.Sequential(*parts).double()


def fisher(model, data, estimator="exact", objective=None, **options):
    count = options.pop("examples", len(data))
    objective = objective or Points()
    return fisher_information(
        model, objective, Plain(), data, estimator=estimator, examples=count, **options
    )


@pytest.mark.parametrize("classes", [2, 5, 40])
def test_exact_fisher_of_softmax_regression_is_its_closed_form(classes: int):
    data, model = records(20, classes), net(classes)
    found = fisher(model, data)
    x = torch.stack([r["x"] for r in data])
    p = model(x).softmax(-1)
    assert torch.allclose(found["0.weight"], ((p * (1 - p)).T @ x**2) / 20, atol=1e-10, rtol=0)
    assert torch.allclose(found["0.bias"], (p * (1 - p)).mean(0), atol=1e-10, rtol=0)


def per_example(model: nn.Module, x: torch.Tensor, y: int) -> dict[str, torch.Tensor]:
    model.zero_grad()
    F.cross_entropy(model(x[None]), torch.tensor([y])).backward()
    return {name: p.grad.clone() ** 2 for name, p in model.named_parameters()}


def test_exact_fisher_equals_brute_force():
    data, model = records(6, 3), net(3, hidden=5)
    found = fisher(model, data)
    for name in found:
        wanted = torch.zeros_like(found[name])
        for r in data:
            p = model(r["x"][None]).softmax(-1)[0].detach()
            wanted += sum(p[c] * per_example(model, r["x"], c)[name] for c in range(3)) / len(data)
        assert torch.allclose(found[name], wanted, atol=1e-12, rtol=0)


def test_empirical_fisher_equals_a_loop_over_examples_and_exceeds_the_batch_trap():
    data, model = records(30, 3), net(3, hidden=5)
    found = fisher(model, data, "empirical")
    wanted = [per_example(model, r["x"], int(r["y"])) for r in data]
    for name in found:
        assert torch.allclose(
            found[name], sum(w[name] for w in wanted) / len(data), atol=1e-12, rtol=0
        )
    model.zero_grad()
    F.cross_entropy(
        model(torch.stack([r["x"] for r in data])), torch.stack([r["y"] for r in data])
    ).backward()
    squared_mean = sum(float((p.grad**2).sum()) for p in model.parameters())
    assert squared_mean < 0.5 * sum(float(f.sum()) for f in found.values())


def test_sampled_fisher_converges_to_the_exact_one():
    data, model = records(4, 3), net(3, hidden=5)
    exact = fisher(model, data)
    trace = sum(float(f.sum()) for f in exact.values())
    errors = []
    for draws in (10, 300):
        sampled = [fisher(model, data, "sampled", seed=seed) for seed in range(draws)]
        mean = {name: sum(s[name] for s in sampled) / draws for name in exact}
        errors.append(sum(float((mean[name] - exact[name]).abs().sum()) for name in exact) / trace)
    assert errors[1] < 0.15 and errors[1] < errors[0]


def test_fisher_of_a_gaussian_is_the_squared_jacobian_over_the_variance():
    data, model = records(10, 1), net(1)
    x = torch.stack([r["x"] for r in data])
    exact = fisher(model, data, objective=Numbers())
    assert torch.allclose(exact["0.weight"][0], (x**2).mean(0) / 0.25, atol=1e-12, rtol=0)
    empirical = fisher(model, data, "empirical", objective=Numbers())
    error = torch.stack([r["value"] for r in data]) - model(x)[:, 0].detach()
    assert torch.allclose(
        empirical["0.weight"][0], ((error / 0.25)[:, None] * x).pow(2).mean(0), atol=1e-12, rtol=0
    )
    assert fisher(model, data, "sampled", objective=Numbers()).keys() == exact.keys()


def test_an_unknown_estimator_or_no_data_is_refused():
    with pytest.raises(ConfigError, match="batch"):
        fisher(net(2), records(2, 2), "batch")
    with pytest.raises(ConfigError, match="no records"):
        fisher(net(2), [])
