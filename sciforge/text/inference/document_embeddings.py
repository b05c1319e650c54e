"""Mean hidden states of documents in files."""

from dataclasses import dataclass

import numpy as np
import torch

from sciforge.core.files.results import ArrayResult
from sciforge.core.training.evaluation import evaluation
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError, DataError
from sciforge.text.inference.reading import ReadsDocuments
from sciforge.text.model.heads import pooled_mean, real_tokens


@dataclass(frozen=True, kw_only=True)
class DocumentEmbeddings(ReadsDocuments):
    """Mean hidden states of documents: `names` [N], and `layer_i` [N, D] (.npz, or a table). Works
    on pretraining checkpoints too.

    Args:
        files: what to read.
        documents: of .txt, what one document is.
        text_column: column of tables, key of JSON lines.
        on_error: `skip` leaves bad documents out and lists them in the provenance; `stop` raises at
            the first.
        layers: which hidden states, from 0 (the embedding) to the depth; negative numbers count
            from the last.
    """

    layers: tuple[int, ...] = (-1,)

    def run(self, model: Model) -> ArrayResult:
        """Return the arrays.

        Raises:
            ConfigError: a layer is not there, or there is no file.
            DataError: there is no document, or a bad one with `on_error` stop.
        """
        depth = model.network.depth
        if not self.layers or not all(-depth - 1 <= layer <= depth for layer in self.layers):
            raise ConfigError(
                f"layers are {self.layers}; give some of 0..{depth} (or -{depth + 1}..-1)"
            )
        layers = list(dict.fromkeys(layer % (depth + 1) for layer in self.layers))
        names: list[str] = []
        rows: dict[int, list[np.ndarray]] = {layer: [] for layer in layers}
        with torch.no_grad(), evaluation(model.network, model.objective):
            for group in self.groups(model):
                names += [record["name"] for record in group]
                for start in range(0, len(group), model.batch):
                    part = group[start : start + model.batch]
                    batch = model.codec.collate([model.codec.encode(record) for record in part])
                    batch = model.engine.move(batch)
                    states, real_BL = model.network(batch, layers=True), real_tokens(batch)
                    for layer in layers:
                        rows[layer].append(
                            pooled_mean(states[layer], real_BL).float().cpu().numpy()
                        )
        if not names:
            raise DataError(
                f"no document in {', '.join(map(str, self.files))}; there is nothing to embed"
            )
        return ArrayResult(
            names,
            {f"layer_{i}": np.concatenate(parts) for i, parts in rows.items()},
            self.facts(model),
        )
