"""Label maps of images: the class of every pixel, as arrays, a table, a picture and files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from sciforge.core.files.atomic import atomic_folder
from sciforge.core.files.output_files import whole_files
from sciforge.core.files.results import Result
from sciforge.errors import ConfigError
from sciforge.images.inference.sheets import Panel, draw_sheet

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


class LabelMaps(Result):
    """The class number of every pixel.

    Args:
        names: of the images.
        maps: uint8 [H, W] of each image, in its own size.
        images: the first images in the frame of the model, for the picture.
        classes: how many there are.
        about: where they come from, as JSON values.
    """

    shown: ClassVar[int] = 8

    def __init__(
        self,
        names: Sequence[str],
        maps: Sequence[np.ndarray],
        images: Sequence[np.ndarray],
        classes: int,
        about: Mapping[str, Any],
    ) -> None:
        self.names, self.maps, self.images, self.classes = (
            list(names),
            list(maps),
            list(images),
            classes,
        )
        self._about = dict(about)

    @property
    def about(self) -> dict[str, Any]:
        """Where the maps come from, as JSON values."""
        return self._about

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, place: int) -> np.ndarray:
        return self.maps[place]

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row an image: name, then class_K, the share of its pixels that are of class
        K.
        """
        import pandas as pd

        shares = [np.bincount(m.ravel(), minlength=self.classes) / m.size for m in self.maps]
        frame = pd.DataFrame(shares, columns=[f"class_{k}" for k in range(self.classes)])
        return pd.concat([pd.DataFrame({"name": self.names}), frame], axis=1)

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the first images and, below each, its map from dark (class 0) to light (the
        last).
        """
        images = self.images[: self.shown]
        levels = np.linspace(0, 255, self.classes).astype(np.uint8)
        maps = [levels[m][..., None] for m in self.maps[: len(images)]]
        return draw_sheet(
            [[Panel(x) for x in images], [Panel(x) for x in maps]], ("image", "classes"), ax
        )

    def save(self, path: Path | str) -> Path:
        """Write a folder of PNG files, the class number as the grey value, or one .npz, or the
        table (.csv, .tsv).

        Raises:
            ConfigError: the folder exists already, or two images have one name.
        """
        path = Path(path)
        if path.suffix.lower() in (".csv", ".tsv"):
            return super().save(path)
        if path.suffix.lower() == ".npz":
            arrays = {f"map_{place}": m for place, m in enumerate(self.maps)}
            with whole_files(path, binary=True) as (file,):
                np.savez(
                    file,
                    names=np.array(self.names),
                    provenance=np.array(json.dumps(self.about)),
                    **arrays,
                )
            return path
        from PIL import Image

        with atomic_folder(path) as work:
            (work / "provenance.json").write_text(json.dumps(self.about) + "\n", encoding="utf-8")
            for name, label_HW in zip(self.names, self.maps, strict=True):
                file = (work / name).with_suffix(".png")
                if "[" in name:  # of an array: bars.npy[3] becomes bars.npy[3].png
                    file = work / f"{name}.png"
                if file.exists():
                    raise ConfigError(
                        f"two images would write {file.name}; give one folder of images at a time"
                    )
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(label_HW).save(file)
        return path
