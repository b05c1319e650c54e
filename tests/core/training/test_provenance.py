"""Where a model comes from: the commit of the code, or none where git cannot say."""

import subprocess

import pytest

from sciforge.core.training import checkpoint
from sciforge.core.training.checkpoint import git_state


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder that stands for the checkout of sciforge."""
    monkeypatch.setattr(checkpoint, "__file__", str(tmp_path / "a" / "b" / "c" / "checkpoint.py"))
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "a")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@b")
    return tmp_path


def git(folder, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_commit_and_whether_files_changed_since(checkout):
    assert git_state.__wrapped__() == (None, None)  # no checkout
    git(checkout, "init", "-q")
    assert git_state.__wrapped__() == (None, None)  # nothing committed
    (checkout / "f").write_text("1")
    git(checkout, "add", "f")
    git(checkout, "commit", "-qm", "one")
    commit = git(checkout, "rev-parse", "HEAD")
    (checkout / "untracked").write_text("1")
    assert git_state.__wrapped__() == (commit, False)
    (checkout / "f").write_text("2")
    assert git_state.__wrapped__() == (commit, True)


def test_without_git_there_is_no_commit(checkout, monkeypatch):
    git(checkout, "init", "-q")
    monkeypatch.setenv("PATH", "")
    assert git_state.__wrapped__() == (None, None)
