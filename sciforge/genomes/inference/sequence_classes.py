"""What a DNA-BERT says of sequences: classes and embeddings (scan.py, variants.py and mutagenesis.py hold the rest)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from sciforge.core.files.output_files import cell, provenance, whole_files
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError, did_you_mean
from sciforge.genomes.data.sequences import as_letters, reverse_complement
from sciforge.genomes.inference.sequence_windows import read_any, sliding, trained_length
from sciforge.genomes.objectives.sequence_labels import Classify


def need_classes(model: Model) -> tuple[str, ...]:
    """Return the class names of a classification checkpoint; raises ConfigError for any other."""
    if not isinstance(model.objective, Classify):
        kind = type(model.objective).__name__
        raise ConfigError(f"{model.checkpoint.path} was trained for {kind}, not to classify; fine-tune it first")
    return model.objective.classes


def class_index(model: Model, label: str) -> int:
    """Return the column of a class; of two classes the second needs no naming."""
    classes = need_classes(model)
    if not label and len(classes) == 2:
        return 1
    if label not in classes:
        raise ConfigError(f"label {label!r} is no class of the checkpoint; {did_you_mean(label, classes)}")
    return classes.index(label)


def in_groups(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yield lists of up to `size` items.

    >>> list(in_groups("abc", 2))
    [['a', 'b'], ['c']]
    """
    items = iter(items)
    while group := list(islice(items, size)):
        yield group


@dataclass(frozen=True, kw_only=True)
class Classes:
    """Class probabilities of sequences, as a table (TSV); averaged over both strands where the task is strand-free.

    A sequence longer than `window` gives one row for each window, half overlapping and the last flush with the end;
    a shorter one is taken whole.

    Args:
        files: FASTA, GenBank, or tables with a column `sequence`.
        out: the table to write: name, start, end (from 0, end excluded), p(class) of every class, class.
        window: bases of a window; by default the length trained on, where the checkpoint records it, else whole sequences.
    """

    files: tuple[Path, ...]
    out: Path
    window: int | None = None

    def write(self, model: Model) -> Path:
        """Write the table and return its path."""
        classes = need_classes(model)
        window = trained_length(model.objective, self.window)
        windows = sliding(read_any(self.files), window, max(1, (window or 2) // 2), short=True)
        with whole_files(self.out) as (table,), tqdm(desc="classes", unit="seq", disable=None, leave=False) as bar:
            table.write(f"# {provenance(self, model)}\n")
            table.write("\t".join(["name", "start", "end", *(f"p({cell(name)})" for name in classes), "class"]) + "\n")
            for group in in_groups(windows, 8 * model.batch):
                need_tokens(group, model.codec.k)
                p_NC = model.outputs({"bases": bases} for _, _, bases, _ in group)["probability"]
                for (name, start, bases, _), p_C in zip(group, p_NC, strict=True):
                    numbers = [f"{p:.6f}" for p in p_C]
                    row = [cell(name), str(start), str(start + len(bases)), *numbers, cell(classes[int(p_C.argmax())])]
                    table.write("\t".join(row) + "\n")
                bar.update(len(group))
        return self.out


def need_tokens(group: list[tuple[str, int, np.ndarray, bool]], k: int) -> None:
    """Raise ConfigError naming the first sequence that is shorter than a token."""
    for name, _, bases, _ in group:
        if len(bases) < k:
            raise ConfigError(f"{name!r} ({as_letters(bases)}) is shorter than k = {k}; leave it out")


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """Mean-pooled hidden states of sequences (.npz): `names` [N], and `layer_i` [N, D] of every layer asked for.

    A sequence longer than `window` is cut into windows, whose tokens count alike. Works on pretraining checkpoints too.

    Args:
        files: FASTA, GenBank, or tables with a column `sequence`.
        out: the .npz file to write.
        layers: which hidden states, from 0 (the embedding) to the depth; negative numbers count from the last.
        both_strands: average the embedding over both strands.
        window: bases of a window; by default the length trained on, where the checkpoint records it, else whole sequences.
    """

    files: tuple[Path, ...]
    out: Path
    layers: tuple[int, ...] = (-1,)
    both_strands: bool = False
    window: int | None = None

    def write(self, model: Model) -> Path:
        """Write the arrays and return their path."""
        layers = self._layers(model)
        window = trained_length(model.objective, self.window)
        windows = sliding(read_any(self.files), window, window or 1, short=True)
        names: list[str] = []
        rows: list[np.ndarray] = []
        total, tokens, fresh = np.zeros(0), 0, True
        with whole_files(self.out, binary=True) as (file,), tqdm(desc="embeddings", unit="seq", disable=None) as bar:
            for group in in_groups(windows, model.batch):
                need_tokens(group, model.codec.k)
                sums_NSD, counts_N = self._sums(model, [bases for _, _, bases, _ in group], layers)
                for (name, _, _, final), sum_SD, count in zip(group, sums_NSD, counts_N, strict=True):
                    total, tokens = (sum_SD, count) if fresh else (total + sum_SD, tokens + count)
                    fresh = final
                    if final:
                        names.append(name)
                        rows.append((total / tokens).astype(np.float32))
                        bar.update()
            arrays = {f"layer_{layer}": np.stack([row[i] for row in rows]) for i, layer in enumerate(layers)}
            np.savez(file, names=np.array(names), provenance=np.array(provenance(self, model)), **arrays)
        return self.out

    def _layers(self, model: Model) -> list[int]:
        depth = model.checkpoint.model_config.depth
        for layer in self.layers:
            if not -depth - 1 <= layer <= depth:
                raise ConfigError(
                    f"layer {layer} is not in 0..{depth} (or -{depth + 1}..-1); the model is {depth} deep"
                )
        if not self.layers:
            raise ConfigError("no layer; give at least one, -1 for the last")
        return list(dict.fromkeys(layer % (depth + 1) for layer in self.layers))

    @torch.no_grad()
    def _sums(self, model: Model, group: list[np.ndarray], layers: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return hidden states summed over real tokens [N, S, D] and how many they are [N]."""
        strands = [group, [reverse_complement(bases) for bases in group]] if self.both_strands else [group]
        total_NSD, count_N = 0.0, None
        for part in strands:
            batch = model.codec.collate([model.codec.encode({"bases": bases}) for bases in part])
            batch = model.engine.move(batch)
            states = model.network(batch, layers=True)
            real_BT = torch.arange(batch["ids"].shape[1], device=model.device) < batch["lengths"][:, None]
            chosen = [torch.where(real_BT[..., None], states[i], 0).sum(1) for i in layers]
            total_NSD = total_NSD + torch.stack(chosen, 1).double().cpu().numpy() / len(strands)
            count_N = batch["lengths"].cpu().numpy()
        return total_NSD, count_N
