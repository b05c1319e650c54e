"""Files that were compared with their digests once are not read whole again, as long as their
stamps stay the same.

The stamps (size, times of change) lie in the user's cache, one small file a folder: a store may be
read-only, and its own files are the same bytes for everyone who prepared it.
"""

import hashlib
import json
import time
from contextlib import suppress
from pathlib import Path

from sciforge.core.files.atomic import check_files, replace_file
from sciforge.core.files.links import cache_folder
from sciforge.errors import DataError, SciforgeError

# A file changed so few seconds before it was read may be changed again without a new time stamp, so
# it is read each time.
SETTLED = 2.0
KEPT = 1000  # folders whose stamps are kept


def check_files_once(
    folder: Path, digests: dict[str, str], error: type[SciforgeError], everything: bool = False
) -> None:
    """Compare files with their SHA-256, those excepted that were compared before and have not been
    touched since.

    Args:
        folder: where they lie.
        digests: name -> SHA-256.
        error: raised for the first file that is missing, leads outside or differs.
        everything: read all files, whatever was known of them.
    """
    began = time.time()
    key = json.dumps([str(folder.resolve()), digests], sort_keys=True)
    place = cache_folder() / "verified" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    known = {} if everything else _read(place)
    before = {name: _stamp(folder / name) for name in digests if "\0" not in name}
    unchanged = {
        name for name, stamp in before.items() if stamp is not None and known.get(name) == stamp
    }
    check_files(folder, digests, error, unchanged)
    if len(unchanged) < len(digests):
        settled = (began - SETTLED) * 1e9
        stamps = {
            n: s
            for n, s in before.items()
            if s == _stamp(folder / n) and s is not None and max(s[1:]) < settled
        }
        if stamps and stamps != known:
            _write(place, stamps)


def _stamp(file: Path) -> list[int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _read(place: Path) -> dict[str, list[int]]:
    try:
        known = json.loads(place.read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(place: Path, stamps: dict[str, list[int]]) -> None:
    """Keep the stamps; a cache that cannot be written only costs time."""
    with suppress(OSError, DataError):
        place.parent.mkdir(parents=True, exist_ok=True)
        replace_file(place, lambda work: work.write_text(json.dumps(stamps), encoding="utf-8"))
        entries = sorted(place.parent.glob("*.json"), key=lambda entry: entry.stat().st_mtime)
        for old in entries[:-KEPT]:
            old.unlink(missing_ok=True)
