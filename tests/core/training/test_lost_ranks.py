"""Real processes, one of which hangs, dies, fails or is told to stop: the others name it, and
nothing is lost.
"""

import json
import os
import re
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from test_ranks_agree import launch
from tiny_runs import Tiny, largest_difference

from sciforge.core.files.atomic import TEMPORARY
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.loop import train
from sciforge.core.training.run import Run, to_json

FAULTY = """
import os, signal, sys, time
from pathlib import Path
from sciforge.cli.main import main
from sciforge.core.training import loop

fault, rank, plain = sys.argv[1], int(os.environ["RANK"]), loop.take_step

def step_with_fault(state, step, batches):
    if fault == "signal":
        if step == 1:
            (Path(__file__).parent / f"pid-{rank}").write_text(str(os.getpid()))
        time.sleep(0.5)
    elif rank == 1 and step == 3:
        if fault == "hang":
            time.sleep(600)
        elif fault == "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif fault == "exit":
            os._exit(3)
        elif fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault == "error":
            raise ZeroDivisionError("no such luck")
    return plain(state, step, batches)

loop.take_step = step_with_fault
sys.exit(main(sys.argv[2:]))
"""


def faulty(fault: str, run: Run, folder: Path, *words: str) -> subprocess.Popen:
    """Start a run in two processes, the second of which goes wrong in its fourth step."""
    (folder / "faulty.py").write_text(FAULTY)
    (folder / "run.json").write_text(json.dumps(to_json(run)))
    command = ["train", "--config", folder / "run.json", *words]
    return launch(folder / "faulty.py", fault, *command)


def lines_of_ours(errors: str) -> list[str]:
    """Return what sciforge wrote last, without its log of data and steps."""
    lines = [line for line in errors.splitlines() if re.match(r"sciforge( \(rank \d+\))?: ", line)]
    log = re.compile(r": step|: \d+ records: |^[^;]*resum")
    return [line for line in lines if not log.search(line)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("hang", "rank 1 hangs in step 4"),
        ("freeze", "rank 1 died or is frozen;"),
        ("exit", "rank 1 died or is frozen;"),
        ("kill", "rank 1 died or is frozen;"),
        ("error", "rank 1 stopped in step 4 (ZeroDivisionError: no such luck)"),
    ],
)
def test_a_lost_rank_is_named_and_the_last_checkpoint_resumes(
    fault: str, words: str, tiny: Tiny, tmp_path: Path
):
    run = replace(tiny.pretraining, out=tmp_path / "run")
    run = replace(run, schedule=replace(run.schedule, save_every=1))
    slow = replace(run, hardware=replace(run.hardware, timeout=4.0))
    with faulty(fault, slow, tmp_path) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    ours = lines_of_ours(errors)
    assert len(ours) == 1, errors
    assert words in ours[0] and ours[0].startswith("sciforge: rank 1 "), ours[0]
    assert "rank 0 waited in step 4 for losses" in ours[0] and "--resume" in ours[0]
    assert not list(run.out.rglob(f"{TEMPORARY}*"))
    assert [step.name for step in run.out.glob("step-*")] == ["step-00000003"]
    again = train(run, resume=True)
    assert largest_difference(again.weights(), tiny.checkpoint.weights()) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("receiver", ["torchrun", "rank 0", "rank 1"])
def test_a_signal_to_any_stops_all_after_the_same_step(receiver: str, tiny: Tiny, tmp_path: Path):
    run = replace(tiny.pretraining, out=tmp_path / "run")
    with faulty("signal", run, tmp_path) as process:
        pid = tmp_path / f"pid-{receiver[-1]}" if "rank" in receiver else tmp_path / "pid-0"
        until = time.monotonic() + 120
        while not (pid.exists() and pid.read_text()) and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(int(pid.read_text()) if "rank" in receiver else process.pid, signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    ours = lines_of_ours(errors)
    assert len(ours) == 1, errors
    named = "SIGTERM" if receiver != "rank 1" else "a signal to another process"
    assert re.fullmatch(
        rf"sciforge: {run.out}: stopped by {named} after step [2-5] of 6; checkpoint saved,"
        r" continue with --resume \(in Python: resume=True\)",
        ours[0],
    )
    if "rank" in receiver:  # torchrun tells the exit codes of those that ended before it did
        assert "exitcode  : 75" in errors
    (step,) = run.out.glob("step-*")
    assert (
        Checkpoint.open(step).step
        == int(step.name[-8:])
        == int(ours[0].split(" after step ")[1].split()[0])
    )
    assert len((run.out / "metrics.jsonl").read_text().splitlines()) >= Checkpoint.open(step).step
    with faulty("none", run, tmp_path, "--resume") as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert errors.count(f"resuming from step {int(step.name[-8:])}") == 1
    with faulty("none", replace(run, out=tmp_path / "whole"), tmp_path) as process:
        process.communicate(timeout=120)
    resumed, whole = (Checkpoint.open(tmp_path / name).weights() for name in ("run", "whole"))
    assert largest_difference(resumed, whole) == 0


@pytest.mark.slow
def test_an_error_of_all_is_one_line_before_the_report_of_torchrun(tiny: Tiny, tmp_path: Path):
    (tmp_path / "run.json").write_text(json.dumps(to_json(tiny.pretraining)))
    command = ["train", "--config", tmp_path / "run.json", "--out", tmp_path / "run"]
    problems = {
        "--schedule.lrr=1": "unknown option --schedule.lrr",  # before the processes meet
        f"--data={tmp_path / 'nowhere'}": "no index.json here",  # where they open files
        "--strategy=shard --schedule.batch=3": "2 processes share 3 examples",  # later
    }
    for options, words in problems.items():
        with launch("-m", "sciforge", *command, *options.split()) as process:
            _, errors = process.communicate(timeout=120)
        assert process.returncode != 0
        ours = lines_of_ours(errors)
        assert len(ours) == 1 and words in ours[0], errors
        assert errors.index(ours[0]) < errors.index("FAILED"), errors
        assert "Traceback" not in errors[: errors.index(ours[0])]
