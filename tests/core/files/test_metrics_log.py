"""metrics.jsonl: what a resumed run keeps, timing apart from metrics, and TensorBoard's event
files.
"""

import json
import sys
from dataclasses import replace

import pytest

from sciforge.core.files import metrics_log
from sciforge.core.files.metrics_log import TIMING, MetricsLog, read_metrics
from sciforge.core.training.loop import train
from sciforge.errors import MissingExtra


def test_every_step_has_its_timing_beside_the_metrics(tiny, fit):
    folder = fit(tiny.pretraining).path.parent
    lines = [line for line in read_metrics(folder / "metrics.jsonl", timing=True) if "loss" in line]
    seconds = [line[TIMING]["seconds"] for line in lines]
    assert len(lines) == tiny.pretraining.schedule.steps and seconds == sorted(seconds)
    assert all(
        line[TIMING]["examples_per_second"] > 0 and line[TIMING]["memory_MiB"] > 10
        for line in lines
    )
    assert all(line["lr"] == tiny.pretraining.schedule.lr_at(line["step"]) for line in lines)
    assert not any(TIMING in line for line in read_metrics(folder / "metrics.jsonl"))


def test_a_resumed_log_drops_the_steps_that_come_again_and_a_torn_line(tmp_path):
    log = MetricsLog(tmp_path, 5)
    for step in range(4):
        log.step(step, loss=float(step))
    log.write(3, validation_loss=1.0)
    log.close()
    with open(tmp_path / "metrics.jsonl", "a") as handle:
        handle.write('{"step": 1, "lo')
    MetricsLog(tmp_path, 5, start=2).close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        {"step": 0, "loss": 0.0},
        {"step": 1, "loss": 1.0},
    ]


def test_timing_is_of_the_run_and_of_the_last_step(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(metrics_log.time, "monotonic", lambda: clock[0])
    log = MetricsLog(tmp_path, 3, examples=8)
    for step, seconds in enumerate((2.0, 4.0, 0.5)):
        clock[0] += seconds
        log.step(step, loss=0.0)
    log.close()
    timing = [line[TIMING] for line in read_metrics(tmp_path / "metrics.jsonl", timing=True)]
    assert [line["seconds"] for line in timing] == [2.0, 6.0, 6.5]
    assert [line["examples_per_second"] for line in timing] == [4.0, 2.0, 16.0]


def test_other_processes_write_nothing(tmp_path):
    log = MetricsLog(None, 5)
    log.step(0, loss=1.0)
    log.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_gets_the_metrics_of_every_step(tiny, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = replace(tiny.pretraining, out=tmp_path / "run", log="tensorboard")
    assert (
        json.loads((train(run).path / "checkpoint.json").read_text())["run"]["log"] == "tensorboard"
    )
    events = accumulator.EventAccumulator(str(run.out)).Reload()
    losses = [event.value for event in events.Scalars("loss")]
    lines = [line for line in read_metrics(run.out / "metrics.jsonl") if "loss" in line]
    assert losses == pytest.approx([line["loss"] for line in lines], rel=1e-6)
    assert {"validation_loss", "lr", "seconds", "memory_MiB"} <= set(events.Tags()["scalars"])


def test_a_missing_tensorboard_is_one_line_with_its_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtra, match=r'pip install "sciforge\[tensorboard\]"'):
        MetricsLog(tmp_path, 5, tensorboard=True)
