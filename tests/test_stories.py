"""Programs that scientists write with the public surface run as they stand, each in an empty
folder.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

STORIES = sorted((Path(__file__).parent / "stories").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.stem)
def test_a_story_runs(story: Path, tmp_path: Path):
    pythonpath = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": pythonpath}
    done = subprocess.run(
        [sys.executable, story], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
