"""Python, JSON and the command line meet the same checks, each with one line that says how to
mend it.
"""

from pathlib import Path

import numpy as np
import pytest

from sciforge.core.training.run import (
    CORE_TYPES,
    EWC,
    L2SP,
    Freeze,
    Full,
    Hardware,
    LoRA,
    Replay,
    Run,
    Schedule,
    Subset,
    from_json,
    to_json,
)
from sciforge.errors import ConfigError

RUN = {"data": Path("d"), "out": Path("o"), "objective": "masked"}


@pytest.mark.parametrize(
    "run",
    [
        Run(**RUN, model="mini"),
        Run(
            **RUN,
            init="parent",
            finetuning=Freeze("x"),
            regularization=EWC(data=Path("e")),
            replay=Replay("r"),
            subset=Subset(9),
        ),
        Run(
            **RUN,
            init="parent",
            finetuning=LoRA(4),
            schedule=Schedule(clip=None),
            hardware=Hardware(micro_batch=3),
        ),
        Run(
            **RUN,
            init="parent",
            finetuning=Full(0.9),
            regularization=L2SP(step="proximal"),
            strategy="shard",
        ),
    ],
)
def test_round_trip(run: Run):
    assert from_json(to_json(run), CORE_TYPES) == run


def test_values_take_their_hinted_types():
    run = Run(
        data="d",
        out="o",
        objective="masked",
        model="mini",
        schedule=Schedule(lr=1, betas=[0.9, 0.95]),
    )
    assert run.data == Path("d") and run.schedule.lr == 1.0 and run.schedule.betas == (0.9, 0.95)
    assert type(Subset(np.int64(8)).count) is int and type(Schedule(lr=np.float32(0.5)).lr) is float


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Schedule(steps=2.5), "schedule.steps is 2.5; expected int"),
        (lambda: Schedule(steps=True), "schedule.steps"),
        (lambda: Schedule(kind="cosin"), "did you mean 'cosine'"),
        (lambda: Schedule(betas=(0.9,)), "expected 2 values"),
        (lambda: Hardware(precision="fp16"), "hardware.precision"),
        (lambda: Hardware(micro_batch=0), "at least 1"),
        (lambda: Hardware(workers=-1), "at least 0"),
        (lambda: Subset(0), "subset.count"),
        (lambda: LoRA(rank=0), "lora.rank"),
        (lambda: L2SP(-1.0), "l2sp.strength"),
        (lambda: EWC(estimator="batch"), "exact, sampled"),
        (lambda: EWC(examples=0), "ewc.examples"),
        (lambda: Replay("r", 1.0), "between 0 and 1"),
        (lambda: Run(**RUN), "either"),
        (lambda: Run(**RUN, model="mini", init="p"), "either"),
        (lambda: Run(**RUN, model="mini", regularization=L2SP()), "--init"),
        (lambda: Run(**RUN, model="mini", seed=-1), "run.seed"),
        (lambda: Run(**RUN, model="mini", strategy="ddp"), "run.strategy"),
        (
            lambda: Run(**RUN, init="p", replay=Replay("r"), schedule=Schedule(batch=1)),
            "replay needs at least 2",
        ),
        (lambda: Run(**RUN, model="mini", finetuning="all"), "expected Full or Freeze or LoRA"),
    ],
)
def test_a_bad_setting_is_one_line(build, words: str):
    with pytest.raises(ConfigError) as caught:
        build()
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sched": 1}, "did you mean 'schedule'"),
        (
            {"schedule": {"type": "Schedule", "stepz": 3}},
            "run.schedule: Schedule has no field 'stepz'; did you mean 'steps'",
        ),
        ({"schedule": {"type": "Scedule"}}, "did you mean 'Schedule'"),
        ({"schedule": {"type": {"type": "Schedule"}}}, "unknown type"),
        ({"schedule": {"type": "LoRA"}}, "run.schedule is"),
        ({"schedule": {"steps": 3}}, "run.schedule is"),
        ({"seed": "0"}, "run.seed is '0'; expected int"),
        ({"data": 5}, "run.data"),
        ({"schedule": {"type": "Schedule", "betas": [0.9, "x"]}}, "run.schedule.betas[1]"),
    ],
)
def test_strange_json_is_one_line(change: dict, words: str):
    with pytest.raises(ConfigError) as caught:
        from_json({**to_json(Run(**RUN, model="mini")), **change}, CORE_TYPES)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_field_is_named():
    with pytest.raises(ConfigError, match="objective"):
        from_json({"type": "Run", "data": "d", "out": "o", "model": "mini"}, CORE_TYPES)
