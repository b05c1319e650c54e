"""What users get from a Vision Transformer: tables, embeddings, boxes, label maps and pictures,
of files and of images in memory.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from sciforge.core.data.store import Reject
from sciforge.core.domain import Objective
from sciforge.core.files.output_files import about
from sciforge.core.files.results import TableResult
from sciforge.core.files.settings import Settings
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError
from sciforge.images.data.image_files import Picture, read_files
from sciforge.images.data.input_notes import unread_notes
from sciforge.images.data.readers import Rules
from sciforge.images.inference.attention import attention_maps
from sciforge.images.inference.embeddings import ImageEmbedding, mean_states
from sciforge.images.inference.label_maps import LabelMaps
from sciforge.images.inference.reconstruction import Reconstruction, reconstructed
from sciforge.images.inference.sheets import Box, ImageSheet, Panel
from sciforge.images.model.center_maps import detected_boxes
from sciforge.images.objectives.detection import DetectObjects
from sciforge.images.objectives.inpainting import InpaintPatches
from sciforge.images.objectives.segmentation import SegmentPatches
from sciforge.images.objectives.supervised import ClassifyImages, RegressImages

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)
CORNERS = ("x0", "y0", "x1", "y1")
PANELS_IN_A_ROW = 4


@dataclass(frozen=True, kw_only=True)
class Files(Settings):
    """The images of an output.

    Args:
        files: folders, pictures (PNG, JPEG, TIFF, BMP, GIF, WebP), arrays (.npy, .npz), IDX files.
        size: rows and columns to scale images to; by default those trained on.
        alpha: `composite` lays transparent pictures on the background, `reject` refuses them.
        background: red, green, blue, from 0 to 255.
        white: the 16-bit value that becomes 255.
        on_error: `skip` leaves out files that cannot be read and lists them in the provenance;
            `stop` raises at the first.
    """

    files: tuple[Path, ...]
    size: tuple[int, int] | None = None
    alpha: Literal["composite", "reject"] = "composite"
    background: tuple[int, int, int] = (255, 255, 255)
    white: int = 65535
    on_error: Literal["stop", "skip"] = "stop"
    rejected: list[Reject] = field(default_factory=list, init=False, repr=False, compare=False)

    def pictures(self, model: Model) -> Iterator[Picture]:
        """Yield the images as the model wants them; those that cannot be read are kept in
        `rejected` where asked.
        """
        self.rejected.clear()
        rules = Rules(self.alpha, self.background, self.white)
        skip = self.rejected.append if self.on_error == "skip" else None
        yield from read_files(self.files, model.codec, rules, self.size, skip)
        if self.rejected:
            log.warning(
                "%d files that cannot be read left out; the result's about lists them",
                len(self.rejected),
            )
        for note in unread_notes(self.files):
            log.warning(note)

    def facts(self, model: Model) -> dict[str, Any]:
        """Return where the result comes from, the files left out and those not read."""
        rejected = {"rejected": [vars(reject) for reject in self.rejected]} if self.rejected else {}
        notes = {"notes": notes} if (notes := unread_notes(self.files)) else {}
        return about(self, model) | rejected | notes

    def groups(self, model: Model, what: str) -> Iterator[list[Picture]]:
        """Yield images in groups of some batches, under a progress bar."""
        pictures = self.pictures(model)
        with tqdm(desc=what, unit="image", disable=None, leave=False) as bar:
            while group := list(islice(pictures, 8 * model.batch)):
                yield group
                bar.update(len(group))

    def first(self, model: Model, count: int) -> list[Picture]:
        """Return the first images, at least one."""
        if count < 1:
            raise ConfigError(f"count is {count}; at least one image is drawn")
        return list(islice(self.pictures(model), count))


def need(model: Model, *kinds: type[Objective]) -> Any:
    """Return the checkpoint's objective; raises ConfigError where it was trained for another."""
    if not isinstance(model.objective, kinds):
        actual, wanted = (
            type(model.objective).__name__,
            " or ".join(kind.__name__ for kind in kinds),
        )
        raise ConfigError(
            f"{model.checkpoint.path} was trained for {actual}, this output needs {wanted}"
        )
    return model.objective


@dataclass(frozen=True, kw_only=True)
class ImageLabels(Files):
    """A table of predicted classes or numbers: name, then label and probabilities, or the number
    under its target's name.
    """

    def run(self, model: Model) -> TableResult:
        """Compute the table; raises ConfigError where the checkpoint predicts neither."""
        import pandas as pd

        need(model, ClassifyImages, RegressImages)
        frames = []
        for group in self.groups(model, "labels"):
            columns = model.inputs.columns(
                model, model.outputs([picture.record for picture in group])
            )
            frames.append(pd.DataFrame({"name": [picture.name for picture in group], **columns}))
        return TableResult(pd.concat(frames, ignore_index=True), self.facts(model))


@dataclass(frozen=True, kw_only=True)
class ImageEmbeddings(Files):
    """Means of patch states, of any checkpoint; saved as .npz: `names` [N], and `layer_i` [N, D] of
    every layer asked for.

    Args:
        layers: from 0 (the embedding) to the depth; negative numbers count from the last.
    """

    layers: tuple[int, ...] = (-1,)

    def run(self, model: Model) -> ImageEmbedding:
        """Compute the embeddings; raises ConfigError where the model has no such layer."""
        depth = model.checkpoint.model_config.depth
        if not self.layers or any(not -depth - 1 <= layer <= depth for layer in self.layers):
            raise ConfigError(
                f"layers {self.layers}; the model has layers 0 to {depth} (-1 is the last)"
            )
        layers = list(dict.fromkeys(layer % (depth + 1) for layer in self.layers))
        names: list[str] = []
        means: list[np.ndarray] = []
        for group in self.groups(model, "embeddings"):
            names += [picture.name for picture in group]
            means.append(mean_states(model, [picture.record for picture in group], layers))
        mean_NSD = np.concatenate(means)
        return ImageEmbedding(
            names, {layer: mean_NSD[:, i] for i, layer in enumerate(layers)}, self.facts(model)
        )


@dataclass(frozen=True, kw_only=True)
class Detections(Files):
    """A table of objects: image, corners in pixels of the file, label, score; and a sheet of the
    first images with their boxes.

    Args:
        score: the least score of an object.
        count: how many images are drawn.
    """

    score: float = 0.3
    count: int = 8

    def run(self, model: Model) -> ImageSheet:
        """Find the objects; raises ConfigError where the checkpoint finds none."""
        sheet = _detected(model, self.groups(model, "detections"), self.score, self.count, {})
        return ImageSheet(sheet.frame, sheet.rows, sheet.names, self.facts(model))


def detect(model: Model, inputs: Sequence[Any], *, score: float = Detections.score) -> ImageSheet:
    """Find objects in images: a table with a row for each object, and a picture; a method,
    `model.detect(images)`.

    Args:
        model: fine-tuned to detect objects.
        inputs: arrays, Pillow images or paths.
        score: the least score of an object.

    Returns:
        A result whose table has the place of the image among the inputs, x0, y0, x1, y1 in its own
        pixels, label and score.
    """
    pictures = model.inputs.pictures(inputs)
    sheet = _detected(model, [pictures], score, len(pictures), {})
    sheet.frame["image"] = sheet.frame["image"].str.removeprefix("input ").astype(int)
    return sheet


def _detected(
    model: Model, groups: Any, score: float, count: int, provenance: dict[str, Any]
) -> ImageSheet:
    import pandas as pd

    classes = need(model, DetectObjects).classes
    rows: list[tuple[Any, ...]] = []
    panels: list[Panel] = []
    for group in groups:
        detections = model.outputs([picture.record for picture in group])["detections"]
        for picture, detection_T6 in zip(group, detections, strict=True):
            boxes = detected_boxes(detection_T6, score)
            corners_K4 = picture.in_file(boxes["boxes"])
            for corners, label, value in zip(
                corners_K4, boxes["labels"], boxes["scores"], strict=True
            ):
                rows.append((picture.name, *corners.tolist(), classes[label], float(value)))
            if len(panels) < count:
                panels.append(box_panel(picture.image, boxes, classes))
    frame = pd.DataFrame(rows, columns=["image", *CORNERS, "label", "score"])
    sheet = [panels[i : i + PANELS_IN_A_ROW] for i in range(0, len(panels), PANELS_IN_A_ROW)]
    return ImageSheet(frame, sheet, (), provenance)


def box_panel(
    image: np.ndarray, boxes: dict[str, np.ndarray], classes: tuple[str, ...], true: Any = None
) -> Panel:
    """Return an image with its boxes, labels and scores (hundredths); true boxes, where given,
    dashed.
    """
    scores = boxes.get("scores", np.zeros(0))
    drawn = [
        Box(tuple(map(float, corners)), f"{classes[label]} {100 * score:.0f}", int(label))
        for corners, label, score in zip(boxes["boxes"], boxes["labels"], scores, strict=True)
    ]
    if true is not None:
        drawn += [Box(tuple(map(float, corners)), colour=7, dashed=True) for corners in true]
    return Panel(image, boxes=tuple(drawn))


@dataclass(frozen=True, kw_only=True)
class Segments(Files):
    """Label maps, the class number of every pixel of the file; saved as a folder of PNG files or
    as .npz.
    """

    def run(self, model: Model) -> LabelMaps:
        """Compute the maps; raises ConfigError where the checkpoint predicts none."""
        maps = _segmented(model, self.groups(model, "segments"), {})
        return LabelMaps(maps.names, maps.maps, maps.images, maps.classes, self.facts(model))


def segment(model: Model, inputs: Sequence[Any]) -> LabelMaps:
    """Return the class number of every pixel of images, in their own size; a method,
    `model.segment(images)`.

    Args:
        model: fine-tuned to segment images.
        inputs: arrays, Pillow images or paths.
    """
    return _segmented(model, [model.inputs.pictures(inputs)], {})


def _segmented(model: Model, groups: Any, provenance: dict[str, Any]) -> LabelMaps:
    classes = need(model, SegmentPatches).classes
    names, images, maps = [], [], []
    for group in groups:
        segments = model.outputs([picture.record for picture in group])["segments"]
        names += [picture.name for picture in group]
        images += [picture.image for picture in group][: max(0, LabelMaps.shown - len(images))]
        maps += [
            picture.map_in_file(map_HW) for picture, map_HW in zip(group, segments, strict=True)
        ]
    return LabelMaps(names, maps, images, classes, provenance)


@dataclass(frozen=True, kw_only=True)
class Reconstructions(Files):
    """The first images as they are, what the encoder saw, and filled in, as a sheet; and a table of
    errors.

    Args:
        count: how many images.
        mask_rate: share of the patches to hide; by default as in training.
        seed: of what is hidden.
    """

    count: int = 8
    mask_rate: float | None = None
    seed: int = 0

    def run(self, model: Model) -> Reconstruction:
        """Fill in the images; raises ConfigError where the checkpoint was not trained to."""
        pictures = self.first(model, self.count)
        return _reconstruction(model, pictures, self.mask_rate, self.seed, self.facts(model))


def reconstruct(
    model: Model,
    inputs: Sequence[Any],
    *,
    mask_rate: float | None = None,
    seed: int = Reconstructions.seed,
) -> Reconstruction:
    """Hide patches of images and fill them in; a method of pretrained models,
    `model.reconstruct(images).plot()`.

    Args:
        model: pretrained to fill in patches.
        inputs: arrays, Pillow images or paths.
        mask_rate: share of the patches to hide; by default as in training.
        seed: of what is hidden.
    """
    return _reconstruction(model, model.inputs.pictures(inputs), mask_rate, seed, {})


def _reconstruction(
    model: Model,
    pictures: Sequence[Picture],
    mask_rate: float | None,
    seed: int,
    provenance: dict[str, Any],
) -> Reconstruction:
    objective = need(model, InpaintPatches)
    if not pictures:
        raise ConfigError("there are no images; give at least one")
    if mask_rate is not None:
        objective = replace(objective, mask_rate=mask_rate)
    images = reconstructed(model, objective, [picture.record for picture in pictures], seed)
    return Reconstruction(*images, [picture.name for picture in pictures], provenance)


@dataclass(frozen=True, kw_only=True)
class AttentionMaps(Files):
    """Where the last block looks in the first images, all heads and each, as a sheet; of any
    checkpoint.

    Args:
        count: how many images.
    """

    count: int = 6

    def run(self, model: Model) -> ImageSheet:
        """Compute the maps."""
        return _attention(model, self.first(model, self.count), self.facts(model))


def attention(model: Model, inputs: Sequence[Any]) -> ImageSheet:
    """Return where the last block looks in images, all heads and each; a method,
    `model.attention(images).plot()`.

    Args:
        model: any checkpoint.
        inputs: arrays, Pillow images or paths.

    Returns:
        A result whose table has a row for each image and head: the patch that is read most, and its
            share of all reading.
    """
    return _attention(model, model.inputs.pictures(inputs), {})


def _attention(model: Model, pictures: Sequence[Picture], provenance: dict[str, Any]) -> ImageSheet:
    import pandas as pd

    if not pictures:
        raise ConfigError("there are no images; give at least one")
    examples = [model.codec.encode(picture.record) for picture in pictures]
    batch = model.engine.move(model.codec.collate(examples))
    with torch.no_grad():
        maps_BHRS = attention_maps(model.network, batch).cpu().numpy()
    rows, table = [], []
    for picture, map_HRS in zip(pictures, maps_BHRS, strict=True):
        maps = [
            ("all heads", map_HRS.mean(0)),
            *((f"head {i + 1}", part) for i, part in enumerate(map_HRS)),
        ]
        rows.append(
            [
                Panel(picture.image, "image"),
                *(Panel(picture.image, name, map=part) for name, part in maps),
            ]
        )
        for name, part in maps:
            row, column = np.unravel_index(part.argmax(), part.shape)
            table.append((picture.name, name, int(row), int(column), float(part.max())))
    frame = pd.DataFrame(table, columns=["image", "head", "row", "column", "share"])
    return ImageSheet(frame, rows, (), provenance)


OUTPUTS: dict[str, type] = {
    "image-labels": ImageLabels,
    "image-embeddings": ImageEmbeddings,
    "detections": Detections,
    "segments": Segments,
    "reconstructions": Reconstructions,
    "attention": AttentionMaps,
}
METHODS = {"reconstruct": reconstruct, "attention": attention, "detect": detect, "segment": segment}
