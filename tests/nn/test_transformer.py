"""Padding, packing, choosing tokens and recomputing never change a result; positions matter by
distance only.
"""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from sciforge.errors import ConfigError
from sciforge.nn.transformer import Encoder, rotary_angles, rotate

WIDTH = 24
LENGTHS = torch.tensor([9, 4, 1])


def build(seed: int = 0, dropout: float = 0.0, dtype: torch.dtype = torch.float64) -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = Encoder(width=WIDTH, depth=3, heads=2, hidden=40, dropout=dropout)
        # far from the small start, where attention is nearly uniform
        for parameter in encoder.parameters():
            parameter.data.add_(0.3 * torch.randn_like(parameter))
    return encoder.to(dtype)


def rows(dtype: torch.dtype = torch.float64, seed: int = 1) -> torch.Tensor:
    return torch.randn(
        3, 9, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).to(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_padding_and_batch_mates_change_nothing(dtype, tolerance):
    encoder, x_BLD = build(dtype=dtype), rows(dtype)
    batched = encoder(x_BLD, LENGTHS)
    other = encoder(
        torch.where(torch.arange(9)[:, None] < LENGTHS[:, None, None], x_BLD, 7.0), LENGTHS
    )
    for row, length in enumerate(LENGTHS.tolist()):
        alone = encoder(x_BLD[row : row + 1, :length])[0]
        torch.testing.assert_close(batched[row, :length], alone, rtol=0, atol=tolerance)
        torch.testing.assert_close(other[row, :length], alone, rtol=0, atol=tolerance)


def test_packing_equals_padding():
    encoder, x_BLD = build(), rows()
    padded = encoder(x_BLD, LENGTHS)
    packed = torch.cat([x_BLD[row, :length] for row, length in enumerate(LENGTHS.tolist())])[None]
    # padding, its own segment
    packed = torch.cat([packed, torch.full((1, 3, WIDTH), 5.0, dtype=packed.dtype)], dim=1)
    segments = torch.tensor([[0] * 9 + [1] * 4 + [2] + [-1] * 3])
    result = encoder(packed, segments_BL=segments)[0]
    expected = torch.cat([padded[row, :length] for row, length in enumerate(LENGTHS.tolist())])
    torch.testing.assert_close(result[:14], expected, rtol=0, atol=1e-12)
    only = torch.rand(1, 17, generator=torch.Generator().manual_seed(0)) < 0.4
    chosen = encoder(packed, segments_BL=segments, only_BL=only)
    torch.testing.assert_close(chosen, result[only[0]], rtol=0, atol=1e-12)


@pytest.mark.parametrize("lengths", [LENGTHS, None, torch.tensor([9, 9, 9])])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_states_of_chosen_tokens_only(lengths, share):
    encoder, x_BLD = build(), rows()
    only = torch.rand(3, 9, generator=torch.Generator().manual_seed(2)) < share
    full, chosen = encoder(x_BLD, lengths)[only], encoder(x_BLD, lengths, only_BL=only)
    torch.testing.assert_close(chosen, full, rtol=0, atol=1e-12)
    expected = torch.autograd.grad(full.square().sum(), list(encoder.parameters()))
    found = torch.autograd.grad(chosen.square().sum(), list(encoder.parameters()))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_layers_end_in_the_result():
    encoder, x_BLD = build(), rows()
    layers = encoder(x_BLD, LENGTHS, return_layers=True)
    assert len(layers) == 4
    torch.testing.assert_close(layers[-1], encoder(x_BLD, LENGTHS), rtol=0, atol=0)
    torch.testing.assert_close(layers[0], encoder.norm(x_BLD), rtol=0, atol=0)


def test_full_rows_need_no_mask(monkeypatch):
    masks = []
    attention = torch.nn.functional.scaled_dot_product_attention

    def spy(*args, attn_mask=None, **kwargs):
        masks.append(attn_mask)
        return attention(*args, attn_mask=attn_mask, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    build()(rows(), torch.tensor([9, 9, 9]))
    assert masks == [None] * 3


def test_attention_sees_distances_only():
    query, key = torch.randn(
        2, 1, 1, 12, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )

    def logits(shift: int) -> torch.Tensor:
        angles = rotary_angles(torch.arange(12) + shift, 16, torch.float64)
        return rotate(query, *angles) @ rotate(key, *angles).mT

    torch.testing.assert_close(logits(1000), logits(0), rtol=0, atol=1e-10)
    assert (logits(0) - query @ key.mT).abs().max() > 0.1
    cosine, sine = rotary_angles(torch.arange(12), 16, torch.float64)
    torch.testing.assert_close(
        rotate(rotate(query, cosine, sine), cosine, -sine), query, rtol=0, atol=1e-12
    )


def test_order_of_tokens_matters():
    encoder, x_BLD = build(), rows()
    assert (encoder(x_BLD.flip(1)).flip(1) - encoder(x_BLD)).abs().max() > 1e-3


@pytest.mark.parametrize("only", [None, torch.arange(9) % 4 == torch.arange(3)[:, None]])
def test_recomputing_gives_the_same_gradients_under_dropout(only):
    encoder, x_BLD = build(dropout=0.3).train(), rows()

    def gradients(checkpointing: bool) -> list[torch.Tensor]:
        encoder.checkpointing = checkpointing
        with torch.random.fork_rng():
            torch.manual_seed(5)
            result = encoder(x_BLD, LENGTHS, only_BL=only)
            return [
                result.detach(),
                *torch.autograd.grad(result.square().sum(), list(encoder.parameters())),
            ]

    for straight, recomputed in zip(gradients(False), gradients(True), strict=True):
        assert torch.equal(straight, recomputed)


def test_the_seed_decides_the_weights():
    def fresh(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        return Encoder(width=WIDTH, depth=2, heads=2, hidden=40).state_dict()

    one, same, other = fresh(1), fresh(1), fresh(2)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["blocks.0.mlp.up.weight"], other["blocks.0.mlp.up.weight"])
    deep = Encoder(width=256, depth=8, heads=2, hidden=512).blocks[3]
    assert deep.mlp.up.weight.std().item() == pytest.approx(256**-0.5, rel=0.05)
    assert deep.mlp.down.weight.std().item() == pytest.approx(0.005, rel=0.05)


def test_names_of_blocks_and_no_buffers():
    encoder = build()
    assert {
        name.split(".")[1] for name, _ in encoder.named_parameters() if name.startswith("blocks.")
    } == set("012")
    assert not list(encoder.buffers())
    assert not [name for name, _ in encoder.named_parameters() if name.endswith("bias")]


def test_half_precision_runs_near_single():
    encoder, x_BLD = build(dtype=torch.float32), rows(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        half = encoder(x_BLD, LENGTHS)
    torch.testing.assert_close(half.float(), encoder(x_BLD, LENGTHS), rtol=0.1, atol=0.15)


def test_per_example_gradients_by_vmap():
    """Differential privacy and the Fisher take per-example gradients with torch.func."""
    encoder, x_BLD = build(), rows()
    weights = {name: parameter.detach() for name, parameter in encoder.named_parameters()}

    def loss(weights: dict[str, torch.Tensor], x_LD: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(encoder, weights, (x_LD[None],)).square().sum()

    # the fused kernel has no batching rule: torch 2.13 warns and runs row by row
    with sdpa_kernel(SDPBackend.MATH):
        each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, x_BLD)
    total = torch.func.grad(lambda weights: sum(loss(weights, x_LD) for x_LD in x_BLD))(weights)
    for name in weights:
        torch.testing.assert_close(each[name].sum(0), total[name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "change",
    [{"heads": 5}, {"width": 22}, {"width": 0}, {"depth": 0}, {"hidden": -1}, {"dropout": 1.0}],
)
def test_bad_sizes(change):
    with pytest.raises(ConfigError):
        Encoder(**{"width": WIDTH, "depth": 1, "heads": 2, "hidden": 8, **change})


def test_contradictory_arguments():
    encoder, x_BLD = build(), rows()
    with pytest.raises(ConfigError, match="not both"):
        encoder(x_BLD, LENGTHS, segments_BL=torch.zeros(3, 9))
    with pytest.raises(ConfigError, match="one of the two"):
        encoder(x_BLD, only_BL=torch.ones(3, 9, dtype=torch.bool), return_layers=True)
