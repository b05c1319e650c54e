"""Compressed files without bombs: unpacking stops where a small file would grow beyond all
proportion.
"""

import io
from pathlib import Path
from typing import Any, BinaryIO

from sciforge.errors import DataError

# Text of science packs 3 to 30 times; gzip can reach 1,030 and bzip2 millions. A bomb below the
# floor does no harm.
LARGEST_RATIO = 200
FLOOR_BYTES = 2**28


class _Bounded(io.RawIOBase):
    """What a decompressor yields, counted."""

    def __init__(self, inner: Any, path: Path) -> None:
        self._inner, self._path, self._bytes = inner, path, 0
        self._most = max(FLOOR_BYTES, LARGEST_RATIO * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._inner.readinto(buffer)
        self._bytes += count
        if self._bytes > self._most:
            mend = "unpack it yourself if you trust it"
            raise DataError(
                f"unpacks to more than {LARGEST_RATIO} times its size, as a decompression bomb;"
                f" {mend}",
                self._path,
            )
        return count

    def close(self) -> None:
        self._inner.close()
        super().close()


def bounded(stream: Any, path: Path) -> BinaryIO:
    """Return a decompressor (of gzip.open and its like, in binary) that raises DataError once it
    yields too much.

    Args:
        stream: the decompressor.
        path: of the compressed file, by whose size the yield is judged.
    """
    return io.BufferedReader(_Bounded(stream, Path(path)), 2**18)
