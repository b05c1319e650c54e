"""The Vision Transformer: patches, places at other sizes, one peer of equal weights, and
attention as it is.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sciforge.errors import ConfigError, DataError
from sciforge.images import ImageCodec, InpaintPatches, VitConfig
from sciforge.images.data.codec import from_patches, to_patches
from sciforge.images.evaluation.laws import LAWS
from sciforge.images.inference.attention import attention_maps, attention_weights
from sciforge.images.model.vit import resized_grid, sine_grid
from sciforge.nn.transformer import Encoder

CODEC = ImageCodec(
    patch=4, height=16, width=24, channels=3, mean=(100.0, 110.0, 120.0), std=(50.0, 60.0, 70.0)
)
SIZES = {"width": 24, "depth": 2, "heads": 2, "hidden": 32}


def build(codec: ImageCodec = CODEC, seed: int = 0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return VitConfig(**SIZES).build(codec).double().eval()


def images(
    num: int = 2, size: tuple[int, int] = (16, 24), channels: int = 3, seed: int = 0
) -> torch.Tensor:
    return torch.from_numpy(
        np.random.default_rng(seed).integers(0, 256, (num, *size, channels)).astype(np.uint8)
    )


class Few:
    """A store of some arrays."""

    path = "few"

    def __init__(self, pictures: np.ndarray):
        self.pictures = pictures

    def split(self, name: str) -> list:
        return [{"image": picture} for picture in self.pictures] if name == "train" else []


def test_patches_are_those_of_unfold():
    image_BHWC = images()
    expected = F.unfold(image_BHWC.permute(0, 3, 1, 2).double(), 4, stride=4).transpose(1, 2)
    ours = (
        to_patches(image_BHWC, 4).double().unflatten(2, (16, 3)).transpose(2, 3).flatten(2)
    )  # unfold's channels come first
    assert torch.equal(ours, expected)
    assert torch.equal(from_patches(to_patches(image_BHWC, 4), (4, 6), 4), image_BHWC)


def test_the_linear_projection_is_a_strided_convolution():
    model, image_BHWC = build(), images()
    x_BCHW = ((image_BHWC.double() - model.mean_C) / model.std_C).permute(0, 3, 1, 2)
    kernel = model.patch_embedding.weight.unflatten(1, (4, 4, 3)).permute(0, 3, 1, 2)
    expected = (
        F.conv2d(x_BCHW, kernel, model.patch_embedding.bias, stride=4).flatten(2).transpose(1, 2)
    )
    ours = model.embedded(to_patches(image_BHWC, 4), (4, 6)) - model.position_embedding.flatten(
        0, 1
    )
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


def test_the_encoder_without_rotary_knows_no_order_and_with_it_is_as_it_was():
    def encoder(**options):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return Encoder(24, 2, 2, 32, **options).double()

    x_BLD = torch.randn(2, 7, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    free, turned = encoder(rotary=False), encoder()
    torch.testing.assert_close(free(x_BLD[:, order]), free(x_BLD)[:, order], rtol=0, atol=1e-12)
    assert not torch.allclose(turned(x_BLD[:, order]), turned(x_BLD)[:, order], atol=1e-3)
    assert torch.equal(turned(x_BLD), encoder(rotary=True)(x_BLD))
    only = torch.arange(7).expand(2, -1) % 3 == 1
    torch.testing.assert_close(free(x_BLD, only_BL=only), free(x_BLD)[only], rtol=0, atol=1e-12)
    lengths = torch.tensor([7, 4])
    torch.testing.assert_close(
        free(x_BLD, lengths)[1, :4], free(x_BLD[1:, :4])[0], rtol=0, atol=1e-12
    )


def test_resized_grids_agree_with_another_resampler():
    grid_RSD = sine_grid(4, 6, 24).double()
    assert torch.equal(resized_grid(grid_RSD, 4, 6), grid_RSD)
    ours = resized_grid(grid_RSD, 8, 12)
    try:
        from transformers.models.vit.modeling_vit import ViTConfig, ViTEmbeddings
    except ImportError:
        pytest.skip("transformers is not installed")
    square = sine_grid(6, 6, 24)
    peer = ViTEmbeddings(ViTConfig(hidden_size=24, image_size=24, patch_size=4))
    with torch.no_grad():
        peer.position_embeddings[0, 1:] = square.flatten(0, 1)
        theirs = peer.interpolate_pos_encoding(torch.zeros(1, 145, 24), 48, 48)[0, 1:].unflatten(
            0, (12, 12)
        )
    torch.testing.assert_close(resized_grid(square, 12, 12), theirs, rtol=0, atol=1e-6)
    assert ours.shape == (8, 12, 24)


def test_a_larger_image_is_encoded_and_its_places_are_between_the_learnt_ones():
    model = build()
    assert model({"image": images(size=(32, 40))}).shape == (2, 8 * 10, 24)
    with torch.no_grad():  # places that rise along the columns must still rise, and by half as much
        model.position_embedding.copy_(torch.arange(6.0)[None, :, None].expand(4, 6, 24))
    between = resized_grid(model.position_embedding, 4, 12)[0, 3:-3, 0]
    # bicubic steps are not all alike, two of them are one step of the grid
    assert (between.diff() > 0.3).all()
    torch.testing.assert_close(
        between[2:] - between[:-2], torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-12
    )


def test_attention_weights_are_those_of_the_block():
    model, batch = build(), {"image": images()}
    weights_BHNN = attention_weights(model, batch)
    inner = {}
    attention = model.encoder.blocks[-1].attention
    hook = attention.register_forward_hook(
        lambda module, inputs, output: inner.update(x=inputs[0], y=output)
    )
    model(batch)
    hook.remove()
    value = attention.value(inner["x"]).unflatten(-1, (2, 12)).transpose(1, 2)
    rebuilt = attention.output((weights_BHNN @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(rebuilt, inner["y"], rtol=0, atol=1e-12)
    maps_BHRS = attention_maps(model, batch)
    assert maps_BHRS.shape == (2, 2, 4, 6)
    torch.testing.assert_close(maps_BHRS.sum((2, 3)), torch.ones(2, 2, dtype=torch.float64))


def test_the_codec_takes_size_and_colours_from_the_training_split():
    pictures = images(num=3).numpy()
    codec = ImageCodec(patch=4).fit(Few(pictures))
    assert (codec.height, codec.width, codec.channels, codec.grid) == (16, 24, 3, (4, 6))
    np.testing.assert_allclose(codec.mean, pictures.reshape(-1, 3).mean(0), rtol=1e-12)
    np.testing.assert_allclose(codec.std, pictures.reshape(-1, 3).std(0), rtol=1e-9)
    flat = ImageCodec(patch=4).fit(Few(np.full((2, 8, 8, 1), 7, np.uint8)))
    assert flat.std == (1.0,)
    model = build(codec)
    normalised = model.normalised(to_patches(torch.from_numpy(pictures), 4)).unflatten(-1, (-1, 3))
    torch.testing.assert_close(
        normalised.mean((0, 1, 2)), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-6
    )


def test_what_the_codec_refuses():
    with pytest.raises(DataError, match="no training image"):
        ImageCodec().fit(Few(np.zeros((0, 8, 8, 1), np.uint8)))
    with pytest.raises(ConfigError, match="16 x 24 pixels do not divide into patches of 5"):
        ImageCodec(patch=5).fit(Few(images().numpy()))
    with pytest.raises(DataError, match="has 1 channels, the training images have 3"):
        CODEC.encode({"image": np.zeros((16, 24, 1), np.uint8)})
    for wrong in (None, np.zeros((16, 24, 3)), np.zeros((16, 24), np.uint8)):
        with pytest.raises(DataError, match="array of bytes"):
            CODEC.encode({"image": wrong})
    with pytest.raises(DataError, match="differ in the size of 'image'"):
        CODEC.collate([CODEC.encode({"image": np.zeros((16, w, 3), np.uint8)}) for w in (24, 28)])
    with pytest.raises(ConfigError, match="not fitted"):
        VitConfig(**SIZES).build(ImageCodec())
    with pytest.raises(ConfigError, match="multiple of 4"):
        VitConfig(width=30, heads=3).build(CODEC)


def test_read_only_and_mirrored_arrays_are_encoded():
    picture = images(num=1).numpy()[0]
    picture.flags.writeable = False
    assert torch.equal(
        CODEC.encode({"image": picture[:, ::-1]})["image"], torch.from_numpy(picture.copy()).flip(1)
    )


@pytest.mark.parametrize("law", LAWS)
def test_laws_hold_for_images_that_are_not_square(law):
    model = build()
    InpaintPatches(decoder_width=16, decoder_heads=2).attach(model)
    violation, tolerance = LAWS[law](model.double(), CODEC, np.random.default_rng(1))
    assert violation <= tolerance


def test_laws_see_a_broken_model(monkeypatch):
    model = build()
    forward = model.encoder.forward

    # a patch that looks at its neighbours in the list, and at other images
    def leaking(x_BND, **options):
        return forward(x_BND + 0.1 * x_BND.roll(1, 1) + 0.1 * x_BND.roll(1, 0), **options)

    monkeypatch.setattr(model.encoder, "forward", leaking)
    for law in ("image-batch-mates", "patch-order"):
        violation, tolerance = LAWS[law](model, CODEC, np.random.default_rng(1))
        assert violation > 1e3 * tolerance, law
