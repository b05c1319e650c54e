"""Which weights move: LoRA merges back, frozen weights keep their bits, deeper layers move more
slowly.
"""

import pytest
import torch
from tiny_runs import largest_difference
from torch import nn

from sciforge.core.domain import seeded_model
from sciforge.core.methods import finetuning
from sciforge.core.training.run import Freeze, Full, LoRA
from sciforge.errors import ConfigError


def fresh_model(tiny, finetuned=None) -> nn.Module:
    return tiny.checkpoint.build()


def shaken_lora(tiny, dtype: torch.dtype) -> tuple[nn.Module, dict]:
    model = fresh_model(tiny).to(dtype)
    batch = tiny.checkpoint.codec.collate(
        [{"bases": torch.randint(4, (30,), dtype=torch.uint8)} for _ in range(3)]
    )
    finetuning.apply(model, LoRA(rank=2, alpha=3.0), ())
    for name, parameter in model.named_parameters():
        if name.endswith("up_OR"):
            nn.init.normal_(parameter, std=0.1)
    return model, batch


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_merging_lora_keeps_names_and_outputs(tiny, dtype, tolerance: float):
    torch.manual_seed(0)
    plain = fresh_model(tiny).to(dtype)
    model, batch = shaken_lora(tiny, dtype)
    with torch.no_grad():
        adapted = model(batch)
        state = finetuning.merged_state(model, model.state_dict())
        merged = finetuning.merge(model)
        assert float((merged(batch) - adapted).abs().max()) < tolerance
        assert float((plain(batch) - adapted).abs().max()) > 1e-3
    assert (
        list(merged.state_dict()) == list(plain.state_dict())
        and state.keys() == plain.state_dict().keys()
    )
    assert largest_difference(state, merged.state_dict()) < tolerance


def test_lora_starts_at_the_plain_model(tiny):
    model, batch = fresh_model(tiny), None
    batch = tiny.checkpoint.codec.collate([{"bases": torch.zeros(30, dtype=torch.uint8)}])
    with torch.no_grad():
        before = model(batch)
        finetuning.apply(model, LoRA(), ())
        assert torch.equal(model(batch), before)


@pytest.mark.parametrize("how", [Freeze(), Freeze(r"blocks\.1\.|^heads\."), LoRA(rank=2)])
def test_what_is_frozen_keeps_its_bits(tiny, fit, how):
    found, before = (
        fit(tiny.finetuning, finetuning=how).weights(),
        tiny.checkpoint.build().state_dict(),
    )
    moved = {name for name in before if not torch.equal(found[name].float(), before[name])}
    block = {name for name in before if ".blocks.1." in name}
    matrices = {name for name in before if ".blocks." in name and before[name].ndim == 2}
    wanted = {
        Freeze: block if isinstance(how, Freeze) and "blocks" in how.pattern else set(),
        LoRA: matrices,
    }[type(how)]
    assert moved == wanted
    model_names = set(
        seeded_model(tiny.checkpoint.model_config, tiny.checkpoint.codec, (), 0).state_dict()
    )
    assert model_names <= set(found)


def test_frozen_steps_hold_the_trunk_and_then_let_go(tiny, fit):
    before = tiny.checkpoint.build().state_dict()
    for steps, stays in ((3, True), (4, False)):
        options = {"steps": steps, "evaluate_every": 0, "patience": 0}
        found = fit(
            tiny.finetuning, f"run-{steps}", finetuning=Full(frozen_steps=3), schedule=options
        ).weights()
        name = "encoder.blocks.0.attention.query.weight"
        name = next(n for n in before if ".blocks.0." in n and before[n].ndim == 2)
        assert torch.equal(found[name].float(), before[name]) == stays


def test_a_random_trunk_may_be_frozen_too(tiny, fit):
    run = tiny.finetuning
    config, codec = tiny.checkpoint.model_config, tiny.checkpoint.codec
    found = fit(run, init=None, model=config, codec=codec, finetuning=Freeze()).weights()
    start = seeded_model(config, codec, (), run.seed).state_dict()
    for name in start:
        assert torch.equal(found[name].float(), start[name])


def test_layer_decay_gives_each_block_its_rate(tiny):
    model = fresh_model(tiny)
    groups = finetuning.groups(model, Full(layer_decay=0.5, backbone_lr_mult=0.8), (), 0.1)
    factor = {name: g.factor for g in groups for name in g.names}
    assert factor["encoder.norm.weight"] == factor["transform.weight"] == 0.8
    assert {f for name, f in factor.items() if ".blocks.1." in name} == {0.8}
    assert {f for name, f in factor.items() if ".blocks.0." in name} == {0.4}
    assert {f for name, f in factor.items() if name.startswith("embedding")} == {0.2}
    decay = {name: g.decay for g in groups for name in g.names}
    assert all(decay[name] == (0.1 if p.ndim > 1 else 0.0) for name, p in model.named_parameters())
    free = finetuning.groups(model, Full(layer_decay=0.5), {"base_bias"}, 0.0)
    assert {g.factor for g in free if "base_bias" in g.names} == {1.0}


@pytest.mark.parametrize(
    "how", [Freeze("nothing"), LoRA(pattern="nothing"), Freeze("("), LoRA(pattern="norm")]
)
def test_a_pattern_that_matches_nothing_is_refused(tiny, how):
    with pytest.raises(ConfigError, match="finetuning.pattern"):
        finetuning.apply(fresh_model(tiny), how, ())
