"""Regions of a genome as people write them: `chr3`, `chr3:1,001-2,000`, `chr3:1001-2000:-`."""

import re
from dataclasses import dataclass
from typing import Self

from sciforge.errors import ConfigError


@dataclass(frozen=True)
class Region:
    """A stretch of a contig.

    Args:
        contig: its name; empty for the first one.
        start: 0-based.
        stop: end, not included; None for the contig's end.
        strand: +1 or -1.
    """

    contig: str
    start: int = 0
    stop: int | None = None
    strand: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the region of `contig`, `contig:from-to` or `contig:from-to:-`, counted from 1
        with both ends included.

        Raises:
            ConfigError: it is not written so, or ends before it begins.

        >>> Region.parse("chr3:1,001-2,000:-")
        Region(contig='chr3', start=1000, stop=2000, strand=-1)
        >>> Region.parse("chr3")
        Region(contig='chr3', start=0, stop=None, strand=1)
        """
        contig, colon, rest = text.partition(":")
        if not colon:
            return cls(contig)
        match = re.fullmatch(r"([\d,]+)-([\d,]+)(?::([+-]?))?", rest)
        if match is None:
            raise ConfigError(f"region {text!r} is not contig:from-to or contig:from-to:-")
        start, stop = int(match[1].replace(",", "")) - 1, int(match[2].replace(",", ""))
        if not 0 <= start < stop:
            raise ConfigError(f"region {text!r} is empty; count from 1, from before to")
        return cls(contig, start, stop, -1 if match[3] == "-" else 1)
