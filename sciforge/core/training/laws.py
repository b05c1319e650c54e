"""How far a model breaks each law of its domain."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sciforge.core.files.results import Result

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class LawResult:
    """How far a model breaks a law, and how far rounding may."""

    name: str
    summary: str
    violation: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the violation is within the tolerance (NaN is not)."""
        return self.violation <= self.tolerance


class CheckResult(Result):
    """All laws of a domain, checked on one model; a sequence of `LawResult`.

    Args:
        laws: one result for each law.
    """

    def __init__(self, laws: Sequence[LawResult]) -> None:
        self.laws = tuple(laws)

    @property
    def holds(self) -> bool:
        """Whether every law holds."""
        return all(law.holds for law in self.laws)

    def __len__(self) -> int:
        return len(self.laws)

    def __iter__(self) -> Iterator[LawResult]:
        return iter(self.laws)

    def __getitem__(self, number: int) -> LawResult:
        return self.laws[number]

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a law: law, violation, tolerance, holds, what it says."""
        import pandas as pd

        rows = [(w.name, w.violation, w.tolerance, w.holds, w.summary) for w in self.laws]
        return pd.DataFrame(
            rows, columns=["law", "violation", "tolerance", "holds", "what it says"]
        )

    def to_json(self) -> list[dict[str, Any]]:
        """Return one object a law."""
        return [{**vars(law), "holds": law.holds} for law in self.laws]
