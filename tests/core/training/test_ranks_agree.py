"""Processes that were told different things stop before the first step, and say what differs."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from tiny_runs import ROOT, Tiny

from sciforge.core.data.store import prepare
from sciforge.core.training.agreement import disagreement
from sciforge.genomes.data.genome import Genome

WORKER = """
import json, os, sys
from dataclasses import replace
from pathlib import Path
import torch
from torch import distributed
from sciforge.core.training import agreement, loop, set_up
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.errors import SciforgeError

distributed.init_process_group("gloo")
rank = distributed.get_rank()
tuned, other_data, parent, other_parent, out = map(Path, sys.argv[1:])
base = Checkpoint.open(tuned).run
fresh = Checkpoint.open(parent).run
lines = {}

def attempt(name, run):
    try:
        loop.train(replace(run, out=out / name))
        lines[name] = "trained"
    except SciforgeError as error:
        lines[name] = str(error)

def other(value, changed):
    return changed if rank else value

short = {"schedule": replace(fresh.schedule, steps=1, evaluate_every=0)}
attempt("same", replace(fresh, **short))
attempt("run", replace(fresh, seed=other(fresh.seed, 8), **short))
attempt("data", replace(fresh, data=other(fresh.data, other_data), **short))
attempt("missing", replace(fresh, data=other(fresh.data, Path("nowhere")), **short))
attempt("parent", replace(base, init=other(parent, other_parent)))
version = agreement.version
loop.version = lambda: {**version(), "sciforge": "9.9"} if rank else version()
attempt("version", replace(fresh, **short))
loop.version = version
build = set_up.seeded_model

def shifted(*arguments):
    model = build(*arguments)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-6 * rank
    return model

set_up.seeded_model = shifted
attempt("weights", replace(fresh, **short))
(out / f"lines-{rank}.json").write_text(json.dumps(lines))
distributed.destroy_process_group()
os._exit(0)  # gloo may abort while Python takes itself down
"""


def launch(*words: object, processes: int = 2, **options) -> subprocess.Popen:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OMP_NUM_THREADS": "1",
    }
    start = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        str(processes),
        "--standalone",
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        [*start, *map(str, words)], env=environment, cwd=ROOT, **pipes, **options
    )


@pytest.fixture(scope="module")
def lines(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    from sciforge.core.training.loop import train

    out = tmp_path_factory.mktemp("ranks")
    (out / "other.fa").write_text(f">other\n{'ACGTTGCAAC' * 300}\n")
    prepare(Genome(files=(out / "other.fa",)), out / "other-data")
    tuned = train(replace(tiny.finetuning, out=out / "tuned"))
    again = train(replace(tiny.pretraining, out=out / "other-parent", seed=11))
    (out / "worker.py").write_text(WORKER)
    words = [
        out / "worker.py",
        tuned.path,
        out / "other-data",
        tiny.checkpoint.path,
        again.path,
        out,
    ]
    with launch(*words) as process:
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    return [json.loads((out / f"lines-{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("kind", ["run", "data", "parent", "version", "weights"])
def test_a_difference_is_refused_by_all(lines, kind):
    assert lines[0]["same"] == lines[1]["same"] == "trained"
    for line in (lines[0][kind], lines[1][kind]):
        assert (
            line.startswith(f"processes disagree: rank 1 has another {kind} than rank 0 (")
            and "\n" not in line
        )
    assert ("seed 8, not" in lines[0][kind]) == (kind == "run") and ("9.9" in lines[0][kind]) == (
        kind == "version"
    )


def test_an_error_of_one_process_is_told_by_all(lines):
    assert "nowhere: no index.json here" in lines[1]["missing"]
    assert lines[0]["missing"] == "rank 1: " + lines[1]["missing"]


def test_the_line_names_every_rank_and_kind():
    ranks = [{"run": {"a": "1"}, "data": {"d": str(rank // 2)}} for rank in range(4)]
    ranks[3]["run"] = {"a": "2"}
    line = disagreement(ranks)
    assert (
        "rank 3 has another run than rank 0 (a 2, not 1)" in line
        and "ranks 2, 3 have another data" in line
    )
    assert disagreement(ranks[:2]) is None
