"""Means of patch states as embeddings of images.

Legend of shape letters: N images, S layers, D width.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sciforge.core.data import sampling
from sciforge.core.domain import Record
from sciforge.core.files.output_files import whole_files
from sciforge.core.files.results import Result

if TYPE_CHECKING:
    import pandas as pd

    from sciforge.core.training.model import Model


@torch.no_grad()
def mean_states(model: "Model", records: Sequence[Record], layers: Sequence[int]) -> np.ndarray:
    """Return the mean patch state of records in each of some layers [N, S, D]."""
    rows = []
    for part in sampling.micro_batches(records, model.batch):
        batch = model.codec.collate([model.codec.encode(record) for record in part])
        states = model.network(model.engine.move(batch), layers=True)
        rows.append(torch.stack([states[layer].mean(1) for layer in layers], 1).cpu().numpy())
    return np.concatenate(rows)


class ImageEmbedding(Result):
    """Embeddings of images.

    Args:
        names: of the images.
        layers: layer -> float32 [N, D].
        about: where they come from, as JSON values.
    """

    def __init__(
        self, names: Sequence[str], layers: Mapping[int, np.ndarray], about: Mapping[str, Any]
    ) -> None:
        self.names, self.layers, self._about = list(names), dict(layers), dict(about)

    @property
    def about(self) -> dict[str, Any]:
        """Where the embeddings come from, as JSON values."""
        return self._about

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row an image: name, then layer_I_J, number J of layer I."""
        import pandas as pd

        frames = [pd.DataFrame(x).add_prefix(f"layer_{layer}_") for layer, x in self.layers.items()]
        return pd.concat([pd.DataFrame({"name": self.names}), *frames], axis=1)

    def save(self, path: Path | str) -> Path:
        """Write arrays (.npz: names, provenance, layer_I) or a table (.csv, .tsv); return the
        path.
        """
        path = Path(path)
        if path.suffix.lower() != ".npz":
            return super().save(path)
        arrays = {f"layer_{layer}": x for layer, x in self.layers.items()}
        with whole_files(path, binary=True) as (file,):
            np.savez(
                file,
                names=np.array(self.names),
                provenance=np.array(json.dumps(self.about)),
                **arrays,
            )
        return path
