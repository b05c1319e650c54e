"""What a Vision Transformer says of image files: tables, embeddings, boxes, label maps and pictures."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from sciforge.core.domain import Objective
from sciforge.core.files.atomic import atomic_folder
from sciforge.core.files.output_files import provenance, whole_files
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError
from sciforge.images.data.image_files import Picture, read_files
from sciforge.images.data.readers import Rules
from sciforge.images.inference.panels import Box, Panel, draw_attention, draw_reconstructions, sheet
from sciforge.images.model.center_maps import found_boxes
from sciforge.images.objectives.detection import DetectObjects
from sciforge.images.objectives.inpainting import InpaintPatches
from sciforge.images.objectives.segmentation import SegmentPatches
from sciforge.images.objectives.supervised import ClassifyImages, RegressImages


@dataclass(frozen=True, kw_only=True)
class Files:
    """What all outputs take.

    Args:
        files: folders, pictures (PNG, JPEG, TIFF), arrays (.npy, .npz), IDX files.
        out: what to write.
        size: rows and columns to scale images to; by default those trained on.
        alpha: `composite` lays transparent pictures on the background, `reject` refuses them.
        background: red, green, blue.
        white: the 16-bit value that becomes 255.
    """

    files: tuple[Path, ...]
    out: Path
    size: tuple[int, int] | None = None
    alpha: Literal["composite", "reject"] = "composite"
    background: tuple[int, int, int] = (255, 255, 255)
    white: int = 65535

    def pictures(self, model: Model) -> Iterator[Picture]:
        """Yield the images as the model wants them."""
        return read_files(self.files, model.codec, Rules(self.alpha, self.background, self.white), self.size)

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
        found, wanted = type(model.objective).__name__, " or ".join(kind.__name__ for kind in kinds)
        raise ConfigError(f"{model.checkpoint.path} was trained for {found}, this output needs {wanted}")
    return model.objective


@dataclass(frozen=True, kw_only=True)
class ImageLabels(Files):
    """A table (CSV) of what images are: p(class) of every class and the likeliest, or a number.

    Args:
        files, out, size, alpha, background, white: see `Files`.
    """

    def write(self, model: Model) -> Path:
        """Write the table and return its path."""
        objective = need(model, ClassifyImages, RegressImages)
        classes = getattr(objective, "classes", ())
        head = ["name", *(f"p({name})" for name in classes), "class"] if classes else ["name", "value"]
        with whole_files(self.out, sources=self.files) as (table,):
            table.write(f"# {provenance(self, model)}\n")
            rows = csv.writer(table, lineterminator="\n")
            rows.writerow(head)
            for group in self.groups(model, "labels"):
                found = model.outputs(picture.record for picture in group)
                for i, picture in enumerate(group):
                    if classes:
                        p_C = found["probability"][i]
                        rows.writerow([picture.name, *(f"{p:.6f}" for p in p_C), classes[int(p_C.argmax())]])
                    else:
                        rows.writerow([picture.name, f"{found['value'][i]:.6g}"])
        return self.out


@dataclass(frozen=True, kw_only=True)
class ImageEmbeddings(Files):
    """Means of patch states (.npz): `names` [N], and `layer_i` [N, D] of every layer asked for; of any checkpoint.

    Args:
        files, out, size, alpha, background, white: see `Files`.
        layers: from 0 (the embedding) to the depth; negative numbers count from the last.
    """

    layers: tuple[int, ...] = (-1,)

    def write(self, model: Model) -> Path:
        """Write the arrays and return their path."""
        depth = model.checkpoint.model_config.depth
        if not self.layers or any(not -depth - 1 <= layer <= depth for layer in self.layers):
            raise ConfigError(f"layers {self.layers}; the model has layers 0 to {depth} (-1 is the last)")
        wanted = list(dict.fromkeys(layer % (depth + 1) for layer in self.layers))
        names: list[str] = []
        rows: list[np.ndarray] = []
        with whole_files(self.out, binary=True, sources=self.files) as (file,), torch.no_grad():
            for group in self.groups(model, "embeddings"):
                names += [picture.name for picture in group]
                for start in range(0, len(group), model.batch):
                    part = group[start : start + model.batch]
                    batch = model.codec.collate([model.codec.encode(picture.record) for picture in part])
                    states = model.network(model.engine.move(batch), layers=True)
                    rows.append(torch.stack([states[layer].mean(1) for layer in wanted], 1).cpu().numpy())
            means_NSD = np.concatenate(rows)
            arrays = {f"layer_{layer}": means_NSD[:, i] for i, layer in enumerate(wanted)}
            np.savez(file, names=np.array(names), provenance=np.array(provenance(self, model)), **arrays)
        return self.out


@dataclass(frozen=True, kw_only=True)
class Detections(Files):
    """A table (CSV) of objects: image, corners in pixels of the file, class, score; and a picture of some.

    Args:
        files, out, size, alpha, background, white: see `Files`.
        score: the least score of an object.
        drawing: a PNG to write besides, of the first images with their boxes.
        count: how many images are drawn.
    """

    score: float = 0.3
    drawing: Path | None = None
    count: int = 8

    def write(self, model: Model) -> Path:
        """Write the table (and the picture) and return the table's path."""
        classes = need(model, DetectObjects).classes
        panels: list[Panel] = []
        with whole_files(self.out, sources=self.files) as (table,):
            table.write(f"# {provenance(self, model)}\n")
            rows = csv.writer(table, lineterminator="\n")
            rows.writerow(["image", "x0", "y0", "x1", "y1", "label", "score"])
            for group in self.groups(model, "detections"):
                found = model.outputs(picture.record for picture in group)["detections"]
                for picture, detection_T6 in zip(group, found, strict=True):
                    boxes = found_boxes(detection_T6, self.score)
                    for corners, label, score in self._rows(picture, boxes):
                        rows.writerow([picture.name, *(f"{x:.2f}" for x in corners), classes[label], f"{score:.4f}"])
                    if len(panels) < self.count:
                        panels.append(drawn(picture.image, boxes, classes))
        if self.drawing is not None:
            sheet(self.drawing, [panels[i : i + 4] for i in range(0, len(panels), 4)])
        return self.out

    def _rows(self, picture: Picture, boxes: dict[str, np.ndarray]) -> Iterator[tuple[np.ndarray, int, float]]:
        corners_K4 = picture.in_file(boxes["boxes"])
        return zip(corners_K4, boxes["labels"].tolist(), boxes["scores"].tolist(), strict=True)


def drawn(image: np.ndarray, boxes: dict[str, np.ndarray], classes: tuple[str, ...], true: Any = None) -> Panel:
    """Return an image with its boxes, labels and scores (hundredths); true boxes, where given, dashed."""
    scores = boxes.get("scores", np.zeros(0))
    found = [
        Box(tuple(map(float, corners)), f"{classes[label]} {100 * score:.0f}", int(label))
        for corners, label, score in zip(boxes["boxes"], boxes["labels"], scores, strict=True)
    ]
    if true is not None:
        found += [Box(tuple(map(float, corners)), colour=7, dashed=True) for corners in true]
    return Panel(image, boxes=tuple(found))


@dataclass(frozen=True, kw_only=True)
class Segments(Files):
    """A folder of label maps (PNG, one channel, the class number as the grey value), in the size the model sees.

    Args:
        files, out, size, alpha, background, white: see `Files`.
    """

    def write(self, model: Model) -> Path:
        """Write the folder, which appears whole, and return its path."""
        from PIL import Image

        need(model, SegmentPatches)
        with atomic_folder(self.out) as work:
            (work / "provenance.json").write_text(provenance(self, model) + "\n", encoding="utf-8")
            for group in self.groups(model, "segments"):
                found = model.outputs(picture.record for picture in group)["segments"]
                for picture, segments_HW in zip(group, found, strict=True):
                    path = (work / picture.name).with_suffix(".png")
                    if "[" in picture.name:  # of an array: bars.npy[3] becomes bars.npy[3].png
                        path = work / f"{picture.name}.png"
                    if path.exists():
                        raise ConfigError(f"two images would write {path.name}; give one folder of images at a time")
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(segments_HW).save(path)
        return self.out


@dataclass(frozen=True, kw_only=True)
class Reconstructions(Files):
    """A picture (PNG) of the first images: as they are, what the encoder saw, and filled in.

    Args:
        files, out, size, alpha, background, white: see `Files`.
        count: how many images.
        mask_rate: share of the patches to hide; by default as in training.
        seed: of what is hidden.
    """

    count: int = 8
    mask_rate: float | None = None
    seed: int = 0

    def write(self, model: Model) -> Path:
        """Write the picture and return its path."""
        objective = need(model, InpaintPatches)
        if self.mask_rate is not None:
            objective = replace(objective, mask_rate=self.mask_rate)
        records = [picture.record for picture in self.first(model, self.count)]
        return draw_reconstructions(self.out, model, objective, records, self.seed)


@dataclass(frozen=True, kw_only=True)
class AttentionMaps(Files):
    """A picture (PNG) of where the last block looks in the first images, all heads and each; of any checkpoint.

    Args:
        files, out, size, alpha, background, white: see `Files`.
        count: how many images.
    """

    count: int = 6

    def write(self, model: Model) -> Path:
        """Write the picture and return its path."""
        return draw_attention(self.out, model, [p.record for p in self.first(model, self.count)])
