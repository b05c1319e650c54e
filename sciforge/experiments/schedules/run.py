"""Learning-rate schedules against each other: equal steps, equal final learning rate, and equal
peak or equal area.

No single published result ranks exponential against step decay (Ge et al. 2019 and Li & Arora 2020
analyse special cases), so what is measured is reported.
"""

from typing import Any

from sciforge.core.data.store import Store
from sciforge.core.domain import get_domain
from sciforge.core.files.atomic import sha256
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.distributed import Engine, choose_device
from sciforge.core.training.loop import train
from sciforge.core.training.run import Run, to_json
from sciforge.experiments.grid import Grid, Row, open_folder, scratch
from sciforge.experiments.held_out import HeldOut, Scores
from sciforge.experiments.schedules.result import SchedulesResult
from sciforge.experiments.schedules.spec import Schedules
from sciforge.experiments.statistics import require_direction


def measure(spec: Schedules) -> SchedulesResult:
    """Train under every schedule and seed that is not yet done, and return all of it.

    Raises:
        ConfigError: nothing to evaluate on, an unknown metric, or another comparison in `spec.out`.
    """
    store = Store.open(spec.data)
    objective = get_domain(store.domain).objective(spec.objective).resolve(store)
    splits = (spec.split,) if spec.split else ("test", "validation")
    held_out = HeldOut.of(store, objective, splits, spec.metric, spec.higher_is_better)
    schedules = {str(kind): spec.schedule_of(kind) for kind in spec.kinds}
    with open_folder(spec.out) as folder:
        grid = Grid.open(folder, ("kind", "seed"), _settings(spec, store, held_out), "a comparison")

        def evaluate(kind: str, seed: int) -> Row:
            with scratch(folder) as work:
                run = Run(
                    data=spec.data,
                    out=work / "run",
                    objective=objective,
                    model=spec.model,
                    init=spec.init,
                    schedule=schedules[kind],
                    hardware=spec.hardware,
                    seed=seed,
                )
                engine = Engine(choose_device(spec.hardware.device), "float32")
                scores = held_out.evaluate_checkpoint(train(run), engine)
            # now, not when all is trained
            require_direction(held_out.higher_is_better, held_out.metric)
            return vars(scores)

        cells = [(str(kind), seed) for seed in range(spec.seeds) for kind in spec.kinds]
        rows = grid.run(cells, evaluate, "schedules")
        scores = {cell: Scores.from_json(row) for cell, row in zip(cells, rows, strict=True)}
        direction = require_direction(held_out.higher_is_better, held_out.metric)
        result = SchedulesResult(scores, schedules, held_out.metric, direction, spec.equal)
        result.keep(folder, spec.out is None, {"spec": to_json(spec)})
    return result


def _settings(spec: Schedules, store: Store, held_out: HeldOut) -> dict[str, Any]:
    """Return what must not change between two calls for one comparison; seeds and kinds may
    grow.
    """
    body = to_json(spec)
    init = (
        None if spec.init is None else sha256(Checkpoint.open(spec.init).path / "checkpoint.json")
    )
    about = {name: body[name] for name in ("objective", "model", "equal", "schedule")}
    about |= {
        "first": spec.kinds[0],
        "data": store.digests(),
        "init": init,
        "split": held_out.split,
    }
    return {**about, "metric": held_out.metric}
