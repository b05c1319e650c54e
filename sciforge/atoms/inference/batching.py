"""Batches of structures of like size, and per-atom values taken apart again.

Legend: B structures, A atoms of a structure (all atoms of the batch where it is packed).
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
from torch import Tensor, nn

from sciforge.atoms.inference.file_frames import FileFrame
from sciforge.core.data import sampling
from sciforge.core.domain import Batch, Record
from sciforge.core.training.model import Model

EDGES = 100_000  # pairs in one batch; 100,000 of 64 channels take about 1 GB with their gradients
WINDOW = 16  # batches sorted by size together, so that a batch holds structures of like size


def windows(frames: Iterable[FileFrame], model: Model) -> Iterator[list[FileFrame]]:
    """Yield lists of frames, each worth a few batches."""
    remaining = iter(frames)
    while window := list(islice(remaining, WINDOW * model.batch)):
        yield window


def in_batches(records: Sequence[Record], max_size: int) -> Iterator[list[int]]:
    """Yield places of records of like size, at most `max_size` and about EDGES pairs at a time.

    >>> records = [{"numbers": [0] * n, "receiver": [0] * n} for n in (9, 2, 9, 3)]
    >>> [list(places) for places in in_batches(records, 2)]
    [[1, 3], [0, 2]]
    """
    places: list[int] = []
    pairs = 0
    for place in sorted(range(len(records)), key=lambda i: len(records[i]["numbers"])):
        more = len(records[place]["receiver"])
        if places and (len(places) == max_size or pairs + more > EDGES):
            yield places
            places, pairs = [], 0
        places.append(place)
        pairs += more
    if places:
        yield places


def batch_of(model: Model, records: Iterable[Record]) -> Batch:
    """Return the collated batch of records on the model's device, in the model's precision."""
    rng = sampling.generator(0, sampling.EVALUATE, 0, 0)  # nothing is drawn from it in evaluation
    examples = [model.objective.prepare(r, model.codec, rng, training=False) for r in records]
    return on_device(model.codec.collate(examples), model.network)


def on_device(batch: Batch, network: nn.Module) -> Batch:
    """Return a batch on the device of a potential, real numbers in its precision."""
    like = network.scale_eV
    return {
        name: value.to(like) if value.is_floating_point() else value.to(like.device)
        for name, value in batch.items()
    }


def split_atoms(value_BA: Tensor, batch: Batch) -> list[np.ndarray]:
    """Return per-atom values [B, A, ...] of either layout as one array a structure, padding left
    out.
    """
    real = value_BA.flatten(0, 1)[batch["number"].flatten() > 0]
    return [part.detach().cpu().numpy() for part in real.split(batch["size"].tolist())]
