"""Pruning: masks are torch's own, zeros stay zero through every kind of run, what is pruned
opens everywhere, curves add up.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_runs import Tiny, make_tiny
from torch import nn
from torch.nn.utils import prune as torch_prune

from sciforge.core.data.store import Store
from sciforge.core.methods.pruning import matrices, share_at, smallest, zero_share
from sciforge.core.training import loop
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.model import Model
from sciforge.core.training.run import EWC, L2SP, Full, LoRA, Pruning, Run, Schedule
from sciforge.errors import ConfigError
from sciforge.experiments.compression.pruning import prune
from sciforge.experiments.compression.pruning_curve import group_names, measure
from sciforge.experiments.compression.spec import Prune
from sciforge.experiments.statistics import mean_interval

PATTERN = Pruning().pattern


@pytest.fixture(scope="module", params=["genomes", "molecules"])
def domain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny(request.param, tmp_path_factory.mktemp(request.param))


def shares(made: Checkpoint) -> float:
    weights = made.weights()
    return zero_share(weights[name] for name in matrices(made.build(), PATTERN))


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_masks_are_those_of_torch(domain: Tiny, share: float):
    model, twin = domain.checkpoint.build(), domain.checkpoint.build()
    names, own = matrices(model, PATTERN), dict(model.named_parameters())
    cut = smallest({name: own[name] for name in names}, share)
    places = [(twin.get_submodule(name.rpartition(".")[0]), "weight") for name in names]
    torch_prune.global_unstructured(places, torch_prune.L1Unstructured, amount=share)
    for name, (module, _) in zip(names, places, strict=True):
        assert torch.equal(~cut[name], module.weight_mask.bool()), name
    each = smallest({name: own[name] for name in names}, share, "matrix")
    for name, module in ((name, twin.get_submodule(name.rpartition(".")[0])) for name in names):
        torch_prune.remove(module, "weight")
        fresh = nn.Linear(1, 1)
        fresh.weight = nn.Parameter(own[name].detach().clone())
        torch_prune.l1_unstructured(fresh, "weight", share)
        assert torch.equal(~each[name], fresh.weight_mask.bool()), name


def test_neither_embeddings_nor_heads_nor_vectors_are_cut(domain: Tiny):
    model = domain.checkpoint.build()
    names = matrices(model, PATTERN)
    tables = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding)
    }
    assert (
        names
        and not tables & set(names)
        and not any("embed" in n or n.startswith("heads.") for n in names)
    )
    assert all(dict(model.named_parameters())[name].ndim > 1 for name in names)
    with pytest.raises(ConfigError, match="matches no weight matrix"):
        matrices(model, "norm")
    with pytest.raises(ConfigError, match="regular expression"):
        matrices(model, "(")


def test_a_pruned_checkpoint_is_an_ordinary_one(domain: Tiny, tmp_path):
    parent = loop.train(replace(domain.finetuning, out=tmp_path / "parent"))
    data = domain.finetuning.data
    found = prune(Prune(init=(parent.path,), out=tmp_path / "half", sparsity=0.5, data=data))
    made = Checkpoint.open(tmp_path / "half")
    assert shares(made) == pytest.approx(0.5, abs=1e-3) == made.metrics["sparsity"]
    names, before, after = matrices(made.build(), PATTERN), parent.weights(), made.weights()
    for name, tensor in after.items():
        kept = tensor != 0 if name in names else torch.ones_like(tensor, dtype=torch.bool)
        assert torch.equal(tensor[kept], before[name][kept]), name
    predictor, store = Model.load(made.path, device="cpu"), Store.open(data)
    again = predictor.evaluate(store, split="test")
    for name, value in found.report["metrics"]["pruned"].items():
        assert again[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    report = json.loads((tmp_path / "half" / "prune.json").read_text())
    assert report["compared"]["change"]["value"] == pytest.approx(
        report["compared"]["pruned"]["value"] - report["compared"]["dense"]["value"]
    )
    assert "0.5" in found.table().text() and (made.path / "README.md").exists()
    with pytest.raises(ConfigError, match="not empty"):
        prune(Prune(init=(parent.path,), out=tmp_path / "half"))


def test_the_run_that_a_pruned_checkpoint_states_makes_it(domain: Tiny, tmp_path):
    made = prune(
        Prune(init=(domain.checkpoint.path,), out=tmp_path / "cut", sparsity=0.4)
    ).checkpoint
    again = loop.train(replace(made.run, out=tmp_path / "again"))
    for name, tensor in made.weights().items():  # a run starts from float32
        assert torch.equal(tensor.float(), again.weights()[name].float()), name
    assert again.metrics["sparsity"] == made.metrics["sparsity"]


@pytest.mark.parametrize(
    "options",
    [
        {"pruning": Pruning(share=0.7)},
        {"pruning": Pruning(share=0.7, scope="matrix", ramp=0.6, cuts=3)},
        {"pruning": Pruning(share=0.7), "regularization": L2SP(5.0, "proximal")},
        {"pruning": Pruning(share=0.7), "regularization": L2SP(5.0)},
        {"pruning": Pruning(share=0.7, ramp=0.6), "average": 0.9},
    ],
)
def test_zeros_stay_zero_while_the_rest_moves(domain: Tiny, fit, options):
    average = options.pop("average", 0.0)
    schedule = {"patience": 0, "steps": 6, "ema_decay": average, "lr": 5e-3}
    made = fit(
        domain.pretraining,
        model=None,
        codec=None,
        init=domain.checkpoint.path,
        schedule=schedule,
        **options,
    )
    assert shares(made) == pytest.approx(0.7, abs=2e-3) == made.metrics["sparsity"]
    names, start = matrices(made.build(), PATTERN), domain.checkpoint.weights()
    moved = [
        float((made.weights()[n].double() - start[n].double()).abs()[made.weights()[n] != 0].sum())
        for n in names
    ]
    assert sum(value > 0 for value in moved) > len(names) // 2


def test_the_zeros_of_a_parent_are_held_and_new_heads_move(domain: Tiny, fit, tmp_path):
    cut = prune(
        Prune(init=(domain.checkpoint.path,), out=tmp_path / "cut", sparsity=0.6)
    ).checkpoint
    plain = fit(domain.finetuning, "plain", init=cut.path)
    held = fit(domain.finetuning, "held", init=cut.path, pruning=Pruning())
    names = matrices(cut.build(), PATTERN)
    for name in names:
        zero = cut.weights()[name] == 0
        assert not held.weights()[name][zero].any()
    assert shares(plain) < 0.3 < 0.6 <= shares(held) + 1e-3
    fresh = held.objectives[0].fresh[0]
    assert any(
        name.startswith(f"heads.{fresh}") and bool(t.any()) for name, t in held.weights().items()
    )


def test_a_ramp_resumes_bit_equal(domain: Tiny, fit, interrupted):
    options = {
        "pruning": Pruning(share=0.8, ramp=0.9, cuts=4),
        "schedule": {"save_every": 2, "steps": 6, "ema_decay": 0.5},
    }
    whole = fit(domain.pretraining, "whole", **options)
    with interrupted(5):
        fit(domain.pretraining, "cut", **options)
    resumed = fit(domain.pretraining, "cut", resume=True, **options)
    assert all(torch.equal(a, resumed.weights()[name]) for name, a in whole.weights().items())
    assert shares(whole) == pytest.approx(0.8, abs=2e-3)


def test_a_ramp_rises_to_its_end_whatever_its_length():
    for steps, ramp, cuts in (
        (10, 0.5, 3),
        (8, 0.5, 10),
        (100, 0.3, 10),
        (2, 0.9, 10),
        (1, 0.9, 3),
    ):
        found = [
            share_at(Pruning(share=0.8, ramp=ramp, cuts=cuts), steps, step) for step in range(steps)
        ]
        found = [share for share in found if share is not None]
        assert found == sorted(found) and found[-1] == pytest.approx(0.8)
    assert all(share_at(Pruning(), 10, step) is None for step in range(10))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"finetuning": LoRA()}, "LoRA"),
        ({"strategy": "shard"}, "replicate"),
        (
            {"pruning": Pruning(0.5, ramp=0.5), "schedule": Schedule(evaluate_every=1, patience=1)},
            "early stopping",
        ),
    ],
)
def test_runs_that_would_fill_the_zeros_are_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        Run(
            **{
                "data": "a",
                "out": "b",
                "init": "c",
                "objective": "classify",
                "pruning": Pruning(0.5),
                **options,
            }
        )


def test_a_metric_that_is_none_leaves_no_folder_behind(domain: Tiny, tmp_path):
    spec = Prune(
        init=(domain.checkpoint.path,),
        out=tmp_path / "cut",
        data=domain.pretraining.data,
        metric="los",
    )
    with pytest.raises(ConfigError, match="no metric 'los'"):
        prune(spec)
    assert prune(replace(spec, metric="loss")).report["metric"] == "loss"


def test_a_figure_that_some_model_lacks_is_told():
    found = mean_interval([1.0, float("nan")])
    assert found.significant() == "not finite" and json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_impossible_shares_are_refused(share):
    with pytest.raises(ConfigError, match="pruning.share"):
        Pruning(share=share)
    with pytest.raises(ConfigError, match="sparsity"):
        Prune(init=("a",), out="b", sparsity=share)


def test_a_net_without_matrices_is_refused(tmp_path):
    heat = make_tiny("heat", tmp_path)
    with pytest.raises(ConfigError, match="no weight matrix"):
        prune(Prune(init=(heat.checkpoint.path,), out=tmp_path / "cut"))


def test_fine_tuning_with_the_mask_held(domain: Tiny, tmp_path):
    tune = Schedule(steps=4, batch=8, lr=1e-3)
    options = {
        "data": domain.pretraining.data,
        "tune": tune,
        "ramp": 0.5,
        "sparsity": 0.5,
        "out": tmp_path / "tuned",
    }
    made = prune(Prune(init=(domain.checkpoint.path,), **options))
    assert made.checkpoint.step == 4 and shares(made.checkpoint) == pytest.approx(0.5, abs=2e-3)
    with pytest.raises(ConfigError, match="--data"):
        Prune(init=("a",), out="b", tune=tune)


def test_a_curve_goes_on_where_it_was(tiny, fit, tmp_path, monkeypatch):
    seeds = [
        fit(
            tiny.pretraining, f"{wd}-{seed}", seed=seed, schedule={"weight_decay": wd, "steps": 2}
        ).path
        for wd in (0.0, 0.5)
        for seed in (0, 1)
    ]
    names = group_names([Checkpoint.open(path) for path in seeds])
    assert names == ("weight_decay 0.0",) * 2 + ("weight_decay 0.5",) * 2
    spec = Prune(init=tuple(seeds), out=tmp_path / "curve", data=tiny.pretraining.data, curve=True)
    spec = replace(spec, sparsities=(0.0, 0.5))
    found = measure(spec)
    first = (tmp_path / "curve" / "runs.jsonl").read_text()
    wider = measure(replace(spec, sparsities=(0.0, 0.5, 0.9)))
    assert (tmp_path / "curve" / "runs.jsonl").read_text().startswith(first)
    assert [found.interval(g, 0.5) for g in found.groups] == [
        wider.interval(g, 0.5) for g in found.groups
    ]
    area = wider.area(names[0])
    means = [wider.interval(names[0], level).value for level in (0.0, 0.5, 0.9)]
    assert area.value == pytest.approx(np.trapezoid(means, (0.0, 0.5, 0.9)) / 0.9)
    assert wider.area(names[2], names[0]).value == pytest.approx(
        wider.area(names[2]).value - area.value
    )
    assert "2 seeds" in wider.note() and (tmp_path / "curve" / "prune.png").stat().st_size > 10_000
    with pytest.raises(ConfigError, match="another scope"):
        measure(replace(spec, scope="matrix"))
    with pytest.raises(ConfigError, match="different numbers of seeds"):
        measure(replace(spec, init=tuple(seeds[:3])))


def test_layer_rates_and_fisher_go_with_zeros(tiny, fit):
    anchor = EWC(examples=4, data=tiny.pretraining.data)
    options = {
        "regularization": anchor,
        "finetuning": Full(layer_decay=0.5),
        "pruning": Pruning(0.5),
    }
    assert shares(fit(tiny.finetuning, **options)) == pytest.approx(0.5, abs=2e-3)
