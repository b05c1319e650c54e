"""Dataset cards: what data there is, under which licence, and how to get it whole.

A card is `datasets/<name>.toml`. `bundled` data lie beside it, `download` data are fetched with
pooch and compared with their SHA-256, a `checkpoint` is a folder in `datasets/checkpoints`.
SCIFORGE_DATA names a folder that is searched first (a mirror for machines without a network);
SCIFORGE_CACHE moves the cache.
"""

import errno
import fcntl
import http.client
import os
import time
import tomllib
import urllib.error
import urllib.request
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Literal

from tqdm.auto import tqdm

from sciforge.core.files.atomic import disk_error, sha256
from sciforge.core.files.links import cache_folder
from sciforge.core.files.tables import Table
from sciforge.errors import CheckpointError, ConfigError, DataError, did_you_mean

RETRIES = 4  # attempts at each address
WAIT_SECONDS = 1.0  # before the second attempt; doubled each time
TIMEOUT_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a dataset is and where it comes from.

    Args:
        name: what `sciforge datasets fetch` calls it.
        summary: one line.
        kind: `bundled`, `download` or `checkpoint`.
        file: the name of the file on disk (a folder for a checkpoint).
        sha256: of that file; downloads without it are refused.
        bytes: its size.
        licence: under which it may be used.
        citation: whom to cite.
        reader: the command or function that reads it.
        split: how to divide it into training, development and test data.
        urls: addresses of the very same bytes, tried in turn.
        source: for bundled data, the package and file that it was taken from.
    """

    name: str
    summary: str
    kind: Literal["bundled", "download", "checkpoint"]
    file: str
    sha256: str = ""
    bytes: int = 0
    licence: str
    citation: str
    reader: str
    split: str
    urls: tuple[str, ...] = ()
    source: str = ""


def datasets_folder() -> Path:
    """Return the folder of cards and bundled data: in the repository, or inside the installed
    package.
    """
    here = Path(__file__).resolve().parent
    for folder in (here / "_datasets", here.parent / "datasets"):
        if folder.is_dir():
            return folder
    raise DataError("the folder of datasets is missing; install sciforge again", here)


def cards() -> dict[str, Card]:
    """List the datasets, or fetch one, whole and verified.

    Returns:
        name -> card, sorted.

    Raises:
        DataError: a card that is not TOML, or lacks a field.
    """
    return {path.stem: _read_card(path) for path in sorted(datasets_folder().glob("*.toml"))}


def _read_card(path: Path) -> Card:
    try:
        body = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"not TOML ({error}); correct the card", path) from None
    known = {field.name for field in fields(Card)}
    for name in body:
        if name not in known:
            raise DataError(f"a card has no field {name!r}; {did_you_mean(name, known)}", path)
    try:
        card = Card(
            name=path.stem, **{k: tuple(v) if isinstance(v, list) else v for k, v in body.items()}
        )
    except TypeError as error:
        raise DataError(f"{str(error).split('__init__() ')[-1]}; complete the card", path) from None
    if Path(card.file).name != card.file:
        raise DataError(f"file is {card.file!r}; give a name without folders", path)
    if card.kind == "download" and (not card.urls or len(card.sha256) != 64):
        raise DataError("a download needs urls and a sha256 of 64 digits; complete the card", path)
    return card


def table() -> Table:
    """Return the cards as a table."""
    rows = []
    for card in cards().values():
        here = "yes" if _at_hand(card) else "no"
        rows.append(
            (card.name, card.kind, f"{card.bytes / 1e6:.1f} MB", here, card.licence, card.summary)
        )
    return Table(("name", "kind", "size", "here", "licence", "what"), tuple(rows))


def _at_hand(card: Card) -> Path | None:
    """Return the card's file where no download is needed, without reading it through."""
    if card.kind == "download":
        places = [
            Path(mirror) / card.file for mirror in [os.environ.get("SCIFORGE_DATA")] if mirror
        ]
        places.append(cache_folder() / card.file)
    else:
        places = [
            datasets_folder() / ("checkpoints" if card.kind == "checkpoint" else "") / card.file
        ]
    return next((place for place in places if place.exists()), None)


def fetch(name: str) -> Path:
    """Return the verified file of a dataset, downloading it if need be.

    Args:
        name: of a card.

    Raises:
        ConfigError: there is no such card.
        DataError: no address served the recorded bytes; nothing is left under the final name.
    """
    known = cards()
    if name not in known:
        raise ConfigError(f"no dataset {name!r}; {did_you_mean(name, known)}")
    card = known[name]
    place = _at_hand(card)
    if card.kind == "checkpoint":
        if place is None:
            raise DataError(
                f"checkpoint {name} is missing; install sciforge again", datasets_folder()
            )
        return place  # Checkpoint.open compares the digests inside
    if place is not None and sha256(place) == card.sha256:
        return place
    if card.kind == "bundled":
        raise DataError("missing or damaged; install sciforge again", datasets_folder() / card.file)
    if place is not None and place.parent != cache_folder():
        raise DataError(f"the mirror's copy of {name} does not match its sha256; replace it", place)
    return _download(card)


def fetch_all(names: tuple[str, ...]) -> list[Path]:
    """Fetch datasets and print where they are.

    Args:
        names: of the cards.
    """
    if not names:
        raise ConfigError(f"name what to fetch; {did_you_mean('', cards())}")
    return [fetch(name) for name in names]


def _download(card: Card) -> Path:
    """Try each address; pooch gives the final name only to a file whose SHA-256 is right."""
    import pooch

    pooch.get_logger().setLevel("ERROR")
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, folder) from None
    problems = []
    for url in card.urls:
        part = folder / f".{card.file}.{card.sha256[:8]}.part"
        for _ in range(
            2 if part.exists() and part.stat().st_size else 1
        ):  # what an earlier session left may itself be wrong: then start anew
            try:
                options = {"fname": card.file, "path": folder, "downloader": Resuming(part, card)}
                return Path(pooch.retrieve(url, f"sha256:{card.sha256}", **options))
            except ValueError:  # pooch's word for a wrong hash; it removed its temporary file
                problem = f"{url} has other bytes than the card's sha256"
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EPERM):
                    raise disk_error(error, folder) from None
                problem = f"{url}: {getattr(error, 'reason', None) or error.strerror or error}"
        problems.append(problem)
    raise DataError(
        f"cannot fetch {card.name} ({'; '.join(problems)}); set SCIFORGE_DATA to a folder that"
        f" holds {card.file}"
    )


@dataclass(frozen=True)
class Resuming:
    """A downloader for pooch that keeps what has arrived and asks the server for the rest.

    Args:
        part: the unfinished file, kept between attempts and sessions.
        card: the size to expect.
    """

    part: Path
    card: Card

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        """Fill `output_file` from `url`; raises OSError when every attempt failed."""
        for attempt in range(RETRIES):
            try:
                with open(self.part, "ab") as handle:
                    _lock(handle)
                    self._transfer(url, handle)
                self.part.replace(output_file)
                return
            except (OSError, http.client.HTTPException) as error:
                settled = (
                    error.code in (401, 403, 404, 410)
                    if isinstance(error, urllib.error.HTTPError)
                    else False
                )
                settled |= getattr(error, "errno", None) in (errno.ENOSPC, errno.EAGAIN)
                if settled or attempt == RETRIES - 1:
                    if self.part.stat().st_size == 0:
                        self.part.unlink()
                    raise (
                        error
                        if isinstance(error, OSError)
                        else OSError(f"{type(error).__name__} {error}")
                    ) from None
                time.sleep(WAIT_SECONDS * 2**attempt)

    def _transfer(self, url: str, handle: BinaryIO) -> None:
        have = handle.tell()
        if self.card.bytes and have == self.card.bytes:
            return
        headers = {"User-Agent": "sciforge", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        try:
            answer = urllib.request.urlopen(
                urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS
            )
        except urllib.error.HTTPError as error:
            if error.code == 416:  # we hold more than the server has: start anew
                handle.truncate(0)
            raise
        with answer:
            start = answer.headers.get("Content-Range", "").removeprefix("bytes ").split("-")[0]
            # a server without Range sends everything again
            if answer.status != 206 or start != str(have):
                handle.truncate(0)
                have = 0
                if answer.status == 206:
                    raise OSError("the server sent another range than was asked for")
            length = int(answer.headers.get("Content-Length") or 0)
            total = have + length if length else self.card.bytes or None
            with tqdm(
                desc=self.card.name,
                initial=have,
                total=total,
                unit="B",
                unit_scale=True,
                disable=None,
            ) as bar:
                while block := answer.read(1 << 18):
                    handle.write(block)
                    bar.update(len(block))
                    length -= len(block)
        if length > 0:
            raise OSError(f"the transfer broke off with {length} bytes to come")


def _lock(handle: BinaryIO) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise OSError(errno.EAGAIN, "another process is fetching this file; wait for it") from None


def card_of(path: Path) -> Card | None:
    """Return the card of the very file at `path`, known by its size and SHA-256; None where no
    card has it.
    """
    size = path.stat().st_size if path.is_file() else -1
    alike = [card for card in cards().values() if card.kind != "checkpoint" and card.bytes == size]
    return next((card for card in alike if card.sha256 == sha256(path)), None)


# Names in place of paths --------------------------------------------------------------------------


def locate(name: Path | str) -> Path:
    """Return the folder of a checkpoint given by path or by name.

    Raises:
        CheckpointError: neither a folder nor the name of a checkpoint.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    text = str(name)
    if "/" not in text:
        place = datasets_folder() / "checkpoints" / text
        if place.is_dir():
            return place
        if (card := cards().get(text)) and card.kind == "checkpoint":
            return fetch(text)
    raise CheckpointError(f"no checkpoint {text!r}; {did_you_mean(text, checkpoint_names())}")


def find(name: str) -> Path:
    """Return the path of a dataset or checkpoint by name, fetching it where it is not at hand."""
    return locate(name) if name in checkpoint_names() else fetch(name)


def checkpoint_names() -> list[str]:
    """Return the names of all checkpoints that are bundled."""
    bundled = (path.parent.name for path in datasets_folder().glob("checkpoints/*/checkpoint.json"))
    return sorted(
        {*bundled, *(card.name for card in cards().values() if card.kind == "checkpoint")}
    )
