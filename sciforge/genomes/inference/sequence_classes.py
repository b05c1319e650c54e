"""Classes of sequences in files, window by window."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from sciforge.core.files.results import TableResult
from sciforge.core.learners.supervised import class_columns
from sciforge.core.training.model import Model
from sciforge.errors import DataError
from sciforge.genomes.inference.reading import ReadsRecords
from sciforge.genomes.inference.requirements import need_classes, trained_length
from sciforge.genomes.inference.sequence_windows import in_groups, read_any, sliding, with_tokens


@dataclass(frozen=True, kw_only=True)
class Classes(ReadsRecords):
    """Class probabilities of sequences, as a table; averaged over both strands where the task is
    strand-free.

    The columns: name, start, end (from 0, end excluded), label, and probability of the second of
    two classes or probability_CLASS of each. A sequence longer than `window` gives one row for each
    window, half overlapping and the last flush with the end; a shorter one is taken whole.

    Args:
        files: FASTA, GenBank, or tables with a column `sequence`.
        window: bases of a window; by default the length trained on, where the checkpoint records
            it, else whole sequences.
        on_error: `skip` leaves bad records out and lists them in the provenance; `stop` raises at
            the first.
    """

    files: tuple[Path, ...]
    window: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, np.inf, "window")

    def run(self, model: Model) -> TableResult:
        """Return the table.

        Raises:
            ConfigError: the checkpoint does not classify, or a sequence is shorter than k.
            DataError: a file or a sequence is bad; names file and line.
        """
        import pandas as pd

        classes = need_classes(model)
        window = trained_length(model.objective, self.window)
        self.rejected.clear()
        windows = sliding(
            read_any(self.files, self.on_reject), window, max(1, (window or 2) // 2), short=True
        )
        places, probabilities = [], []
        with tqdm(desc="classes", unit="seq", disable=None, leave=False) as bar:
            for group in in_groups(windows, 8 * model.batch):
                group = with_tokens(group, model.codec.k, self.on_reject)
                if not group:
                    continue
                probabilities.append(
                    model.outputs({"bases": bases} for _, _, bases, _ in group)["probability"]
                )
                places += [(name, start, start + len(bases)) for name, start, bases, _ in group]
                bar.update(len(group))
        if not places:
            raise DataError("every record was rejected; correct the file", self.files[0])
        frame = pd.DataFrame(places, columns=["name", "start", "end"])
        frame = frame.assign(**class_columns(classes, np.concatenate(probabilities)))
        return TableResult(frame, self.facts(model), sources=self.files)
