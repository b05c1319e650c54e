"""What outputs share that read files of sequences or variants: bad records are refused, or left out
and counted.
"""

import logging
from dataclasses import dataclass, field
from typing import Any, Literal

from sciforge.core.data.store import Reject
from sciforge.core.files.output_files import about
from sciforge.core.files.settings import Settings
from sciforge.core.training.model import Model
from sciforge.genomes.inference.sequence_windows import OnReject

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ReadsRecords(Settings):
    """Settings of an output that reads records from files."""

    on_error: Literal["stop", "skip"] = "stop"
    rejected: list[Reject] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def on_reject(self) -> OnReject:
        """What takes a bad record; None where it stops the run."""
        return self.rejected.append if self.on_error == "skip" else None

    def facts(self, model: Model) -> dict[str, Any]:
        """Return where the result comes from and the records that were left out, which are counted
        in the log.
        """
        if not self.rejected:
            return about(self, model)
        first = self.rejected[0]
        log.warning(
            "%d bad records left out, the first: %s (line %s): %s",
            len(self.rejected),
            first.path,
            first.line,
            first.reason,
        )
        return about(self, model) | {"rejected": [vars(reject) for reject in self.rejected]}
