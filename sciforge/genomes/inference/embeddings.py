"""Mean hidden states of sequences in files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from sciforge.core.files.results import ArrayResult
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError, DataError
from sciforge.genomes.data.sequences import reverse_complement
from sciforge.genomes.inference.reading import ReadsRecords
from sciforge.genomes.inference.requirements import trained_length
from sciforge.genomes.inference.sequence_windows import in_groups, read_any, sliding, with_tokens


@dataclass(frozen=True, kw_only=True)
class Embeddings(ReadsRecords):
    """Mean-pooled hidden states of sequences: `names` [N], and `layer_i` [N, D] of every layer
    asked for (.npz, or a table).

    A sequence longer than `window` is cut into windows, whose tokens count alike. Works on
    pretraining checkpoints too.

    Args:
        files: FASTA, GenBank, or tables with a column `sequence`.
        layers: which hidden states, from 0 (the embedding) to the depth; negative numbers count
            from the last.
        both_strands: average the embedding over both strands.
        window: bases of a window; by default the length trained on, where the checkpoint records
            it, else whole sequences.
        on_error: `skip` leaves bad records out and lists them in the provenance; `stop` raises at
            the first.
    """

    files: tuple[Path, ...]
    layers: tuple[int, ...] = (-1,)
    both_strands: bool = False
    window: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, np.inf, "window")
        if not self.layers:
            raise ConfigError("embeddings.layers is empty; give at least one, -1 for the last")

    def run(self, model: Model) -> ArrayResult:
        """Return the arrays.

        Raises:
            ConfigError: a layer is not there, or a sequence is shorter than k.
            DataError: a file or a sequence is bad; names file and line.
        """
        layers = self._layers(model)
        window = trained_length(model.objective, self.window)
        self.rejected.clear()
        windows = sliding(read_any(self.files, self.on_reject), window, window or 1, short=True)
        names: list[str] = []
        rows: list[np.ndarray] = []
        total_SD, tokens, fresh = np.zeros(0), 0, True
        with tqdm(desc="embeddings", unit="seq", disable=None, leave=False) as bar:
            for group in in_groups(windows, model.batch):
                group = with_tokens(group, model.codec.k, self.on_reject)
                if not group:
                    continue
                sums_NSD, counts_N = self._sums(model, [bases for _, _, bases, _ in group], layers)
                for (name, _, _, final), sum_SD, count in zip(
                    group, sums_NSD, counts_N, strict=True
                ):
                    total_SD, tokens = (
                        (sum_SD, count) if fresh else (total_SD + sum_SD, tokens + count)
                    )
                    fresh = final
                    if final:
                        names.append(name)
                        rows.append((total_SD / tokens).astype(np.float32))
                        bar.update()
        if not names:
            raise DataError("every record was rejected; correct the file", self.files[0])
        arrays = {
            f"layer_{layer}": np.stack([row[i] for row in rows]) for i, layer in enumerate(layers)
        }
        return ArrayResult(names, arrays, self.facts(model))

    def _layers(self, model: Model) -> list[int]:
        depth = model.checkpoint.model_config.depth
        for layer in self.layers:
            if not -depth - 1 <= layer <= depth:
                raise ConfigError(
                    f"layer {layer} is not in 0..{depth} (or -{depth + 1}..-1); the model is"
                    f" {depth} deep"
                )
        return list(dict.fromkeys(layer % (depth + 1) for layer in self.layers))

    @torch.no_grad()
    def _sums(
        self, model: Model, group: list[np.ndarray], layers: list[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return hidden states summed over real tokens [N, S, D] and how many they are [N]."""
        strands = (
            [group, [reverse_complement(bases) for bases in group]]
            if self.both_strands
            else [group]
        )
        total_NSD, count_N = 0.0, None
        for part in strands:
            batch = model.codec.collate([model.codec.encode({"bases": bases}) for bases in part])
            batch = model.engine.move(batch)
            states = model.network(batch, layers=True)
            real_BT = (
                torch.arange(batch["ids"].shape[1], device=model.device) < batch["lengths"][:, None]
            )
            chosen = [torch.where(real_BT[..., None], states[i], 0).sum(1) for i in layers]
            total_NSD = total_NSD + torch.stack(chosen, 1).double().cpu().numpy() / len(strands)
            count_N = batch["lengths"].cpu().numpy()
        return total_NSD, count_N
