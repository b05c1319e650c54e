"""Masked patches and relative positions: what is hidden stays hidden, what is asked for can be
known, and nothing else.
"""

import numpy as np
import pytest
import torch

from sciforge.errors import ConfigError
from sciforge.images import ImageCodec, InpaintPatches, VitConfig
from sciforge.images.objectives.inpainting import draw_hidden, patch_scale
from sciforge.images.objectives.relative_position import SIDES, RelativePositions, cut_pair

CODEC = ImageCodec(patch=4, height=28, width=28, channels=1, mean=(90.0,), std=(60.0,))


def build(objective, codec: ImageCodec = CODEC):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VitConfig(width=24, depth=2, heads=2, hidden=32).build(codec)
        objective.attach(model)
    return model.double().eval()


def picture(seed: int = 0, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (28, 28, channels)).astype(np.uint8)


def batch_of(objective, pictures, codec: ImageCodec = CODEC, training: bool = False):
    made = [
        objective.prepare({"image": p}, codec, np.random.default_rng(i), training)
        for i, p in enumerate(pictures)
    ]
    return codec.collate(made)


@pytest.mark.parametrize(("rate", "hidden"), [(0.75, 37), (0.001, 1), (0.999, 48)])
def test_the_share_that_is_hidden(rate, hidden):
    visible_M, hidden_K = draw_hidden(49, rate, np.random.default_rng(0))
    assert len(hidden_K) == hidden and sorted([*visible_M, *hidden_K]) == list(range(49))


def test_every_patch_is_hidden_alike_often():
    rng = np.random.default_rng(0)
    count_N = sum(
        np.isin(np.arange(49), draw_hidden(49, 0.75, rng)[1]).astype(int) for _ in range(2000)
    )
    assert abs(count_N / 2000 - 37 / 49).max() < 4.5 * (37 / 49 * 12 / 49 / 2000) ** 0.5


def test_the_loss_is_of_hidden_patches_only_and_no_hidden_pixel_reaches_the_decoder():
    objective = InpaintPatches(decoder_width=16, decoder_heads=2)
    model, batch = build(objective), batch_of(objective, [picture(0), picture(1)])
    told = objective.filled(model, batch)
    loss = objective.loss(model, batch)
    assert int(loss.count) == 2 * 37
    by_hand = ((told - objective.targets(model, batch)) ** 2).mean(-1).sum()
    torch.testing.assert_close(loss.total, by_hand, rtol=1e-12, atol=0)
    other = {**batch, "image": batch["image"].clone()}
    row, column = divmod(int(batch["hidden"][0, 5]), 7)
    other["image"][0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] ^= 255
    assert torch.equal(objective.filled(model, other), told)
    changed = objective.loss(model, other).total - loss.total
    row, column = divmod(int(batch["visible"][0, 0]), 7)
    other["image"][0, 4 * row, 4 * column] ^= 255
    assert changed != 0 and not torch.equal(objective.filled(model, other), told)


def test_fewer_patches_asked_for_are_told_the_same():
    whole, part = (
        InpaintPatches(decoder_width=16, decoder_heads=2, decoded_share=share)
        for share in (1.0, 0.5)
    )
    model, pictures = build(whole), [picture(i) for i in range(3)]
    every, some = batch_of(whole, pictures), batch_of(part, pictures)
    assert torch.equal(every["visible"], some["visible"]) and some["hidden"].shape == (3, 18)
    told, told_some = whole.filled(model, every), part.filled(model, some)
    for row in range(3):
        at = torch.searchsorted(every["hidden"][row], some["hidden"][row])
        assert torch.equal(every["hidden"][row][at], some["hidden"][row])
        torch.testing.assert_close(told[row][at], told_some[row], rtol=0, atol=1e-12)


def test_normalised_targets_have_no_mean_and_flat_patches_stay_flat():
    objective = InpaintPatches(decoder_width=16, decoder_heads=2, normalise=True)
    model = build(objective)
    flat = np.full((28, 28, 1), 30, np.uint8)
    flat[::2] += 1  # one step of a byte, as noise of a scanner leaves it
    target_BKP = objective.targets(model, batch_of(objective, [picture(), flat]))
    assert target_BKP.mean(-1).abs().max() < 1e-6
    assert (
        0.95 < float(target_BKP[0].std(-1).mean()) < 1.05 and float(target_BKP[1].abs().max()) < 0.3
    )
    mean, std = patch_scale(torch.tensor([[[1.0, 3.0]]]))
    assert float(mean) == 2 and float(std) == pytest.approx(1.0005, abs=1e-4)


def test_reconstruction_of_a_patch_that_can_be_known_beats_the_mean():
    """Stripes: a net that reads the visible patches tells the hidden ones; the training mean
    cannot.
    """
    objective, rng = InpaintPatches(decoder_width=16, decoder_heads=2), np.random.default_rng(0)
    model = build(objective).float().train()
    rows = rng.integers(0, 2, (64, 28, 1, 1)).repeat(28, 2).astype(np.uint8) * 120 + 30
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    batch = batch_of(objective, list(rows))
    for _ in range(120):
        optimizer.zero_grad()
        loss = objective.loss(model, batch)
        (loss.total / loss.count).backward()
        optimizer.step()
    guess = objective.targets(model, batch).square().mean()
    assert float(loss.total.detach() / loss.count) < 0.3 * float(guess)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mask_rate": 0.0},
        {"mask_rate": 1.0},
        {"decoded_share": 0.0},
        {"decoder_depth": 0},
        {"hue": 0.7},
    ],
)
def test_settings_of_inpainting_that_are_refused(wrong):
    with pytest.raises(ConfigError):
        InpaintPatches(**wrong)


def test_a_decoder_that_cannot_be_built_and_an_image_of_one_patch():
    with pytest.raises(ConfigError, match="decoder_width 18"):
        build(InpaintPatches(decoder_width=18))
    with pytest.raises(ConfigError, match="nothing to hide behind"):
        InpaintPatches().prepare(
            {"image": np.zeros((4, 4, 1), np.uint8)}, CODEC, np.random.default_rng(0), True
        )


# Relative positions -------------------------------------------------------------------------------


def coordinates() -> np.ndarray:
    """An image whose pixels say where they are: row * 9 + column would overflow, so two channels
    say it.
    """
    row, column = np.mgrid[:28, :28]
    return np.stack([row, column, np.zeros_like(row)], 2).astype(np.uint8)


@pytest.mark.parametrize("side", SIDES, ids=str)
def test_the_second_piece_lies_on_its_side_with_a_gap(side):
    rng = np.random.default_rng(0)
    firsts = set()
    for _ in range(100):
        first, second = cut_pair(coordinates(), side, 8, 2, 1, rng).astype(int)
        assert first.shape == second.shape == (8, 8, 3)
        step = second[0, 0, :2] - first[0, 0, :2]
        for axis in (0, 1):
            # a piece and a gap, shifted by up to a pixel
            assert abs(step[axis] - side[axis] * 10) <= 1
        firsts.add(tuple(first[0, 0, :2]))
    assert len(firsts) > 30  # anywhere in the image


def test_pieces_tell_nothing_of_where_they_were_cut_but_their_pixels():
    """All pieces of a flat image are encoded the same, so no shortcut leads around the content."""
    objective = RelativePositions(pairs=8)
    model = build(objective)
    batch = batch_of(objective, [np.full((28, 28, 1), 77, np.uint8)])
    assert batch["pieces"].shape == (1, 8, 2, 8, 8, 1)
    logits_XK = objective.logits(model, batch)
    torch.testing.assert_close(logits_XK, logits_XK[:1].expand(8, -1), rtol=0, atol=1e-12)
    assert len(batch["target_side"].unique()) > 2


def test_one_channel_is_left_of_coloured_pieces():
    codec = ImageCodec(
        patch=4, height=28, width=28, channels=3, mean=(10.0, 20.0, 30.0), std=(1.0, 1.0, 1.0)
    )
    pieces = batch_of(RelativePositions(pairs=6), [picture(channels=3)], codec)["pieces"][0]
    flat = (pieces == torch.tensor([10, 20, 30], dtype=torch.uint8)).flatten(1, 3).all(1)
    assert (flat.sum(1) == 2).all() and len(flat.int().argmin(1).unique()) > 1
    kept = batch_of(RelativePositions(pairs=2, drop_colour=False), [picture(channels=3)], codec)[
        "pieces"
    ][0]
    assert not (kept == torch.tensor([10, 20, 30], dtype=torch.uint8)).flatten(1, 3).all(1).any()


def test_the_task_can_be_learnt_where_pieces_differ():
    objective = RelativePositions(pairs=16, drop_colour=False, gap=1, shift=0)
    codec = ImageCodec(
        patch=4, height=28, width=28, channels=3, mean=(14.0, 14.0, 0.0), std=(8.0, 8.0, 1.0)
    )
    model = build(objective, codec).float().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(60):
        made = [
            objective.prepare(
                {"image": coordinates()}, codec, np.random.default_rng((step, i)), True
            )
            for i in range(8)
        ]
        batch = codec.collate(made)
        optimizer.zero_grad()
        loss = objective.loss(model, batch)
        (loss.total / loss.count).backward()
        optimizer.step()
    hits, count = loss.parts["accuracy"]
    assert int(count) == 128 and float(hits) / 128 > 0.7


def test_what_relative_positions_refuse():
    with pytest.raises(ConfigError, match="could make the pieces overlap"):
        RelativePositions(gap=1, shift=2)
    with pytest.raises(ConfigError, match="need images of 35 pixels"):
        batch_of(RelativePositions(piece=16), [picture()])
    with pytest.raises(ConfigError, match="do not divide"):
        batch_of(RelativePositions(piece=6), [picture()])
