"""Symbolic links among the files of a checkpoint or store: followed on request, and then only into
the user's caches.

Hugging Face's cache keeps `models--NAME/snapshots/REVISION/FILE -> ../../blobs/DIGEST`; DVC links
files of a work tree into `.dvc/cache`. A link that leads anywhere else is always refused.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from sciforge.errors import SciforgeError, printable

_FOLLOW: ContextVar[bool] = ContextVar("follow_links", default=False)


@contextmanager
def following_links(on: bool = True) -> Iterator[None]:
    """Follow links inside the block, where `on` is true; else as before."""
    token = _FOLLOW.set(on or _FOLLOW.get())
    try:
        yield
    finally:
        _FOLLOW.reset(token)


def links_followed() -> bool:
    """Return whether links are followed here."""
    return _FOLLOW.get()


def cache_folder() -> Path:
    """Return where downloads and stamps are kept: SCIFORGE_CACHE, or the operating system's
    cache folder.
    """
    import pooch

    return Path(os.environ.get("SCIFORGE_CACHE") or pooch.os_cache("sciforge"))


def _hugging_face_cache() -> Path:
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")


def _allowed(root: Path) -> Iterator[Path]:
    """Yield the folders into which files of the folder `root` may be linked."""
    yield root
    for parent in (root, *root.parents):
        if parent.name == "snapshots":
            yield parent.parent / "blobs"
        if (parent / ".dvc").is_dir():
            yield parent / ".dvc" / "cache"
    for cache in (cache_folder(), _hugging_face_cache()):
        yield cache.resolve()


def require_own_file(folder: Path, name: str, error: type[SciforgeError]) -> None:
    """Raise `error` where a file of a checkpoint or store leads outside of its folder, but by a
    link that is to be followed.

    Args:
        folder: of the checkpoint or store.
        name: of the file, relative to it.
        error: the type of the error.
    """
    file = folder / name
    if "\0" in name or ".." in Path(name).parts or Path(name).is_absolute():
        raise error(f"{folder}: refuses the file name {name!r}; it points outside the folder")
    try:
        root, target = folder.resolve(), file.resolve()
    except (RuntimeError, OSError):  # of links in a circle
        raise error(
            f"{file}: refuses a link that leads to itself; fetch the folder again"
        ) from None
    if target == root / name:
        return
    to = printable(str(target))
    if not any(target.is_relative_to(place) for place in _allowed(root)):
        raise error(
            f"{file}: refuses a link out of the folder and the caches (to {to}); copy the folder"
            " with what it links to (cp -rL)"
        )
    if not links_followed():
        raise error(
            f"{file}: refuses a link (to {to}) unless asked; add --follow-links (in Python:"
            " follow_links=True)"
        )
