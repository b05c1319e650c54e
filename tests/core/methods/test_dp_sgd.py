"""Private training: gradients of single examples, sampling, noise, what it spends, and what it
refuses.
"""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from tiny_runs import Tiny, largest_difference, make_tiny
from torch import nn

from sciforge.core.data import sampling
from sciforge.core.domain import Loss, Objective
from sciforge.core.files.metrics_log import read_metrics
from sciforge.core.methods.dp_sgd import Mechanism, noise_for, spent
from sciforge.core.methods.example_gradients import single_gradients, vectorised_gradients
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.distributed import Engine
from sciforge.core.training.run import DPSGD, Full, Replay, Run, Subset
from sciforge.core.training.set_up import set_up
from sciforge.core.training.training_state import TrainingState
from sciforge.errors import ConfigError
from sciforge.nn.transformer import Encoder

QUIET = DPSGD(noise=1.0, delta=1e-3, accountant="rdp")


@pytest.fixture(scope="module")
def molecules(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny("molecules", tmp_path_factory.mktemp("molecules"))


@pytest.fixture(params=["genomes", "molecules"])
def tuning(request: pytest.FixtureRequest, tiny: Tiny, molecules: Tiny) -> Run:
    """A fine-tuning run whose head is not solved before the first step."""
    run = (tiny if request.param == "genomes" else molecules).finetuning
    return replace(run, objective=replace(run.objective, warm_start=False), dp_sgd=QUIET)


def state_of(run: Run) -> TrainingState:
    return set_up(run, Engine(torch.device("cpu"), run.hardware.precision))


def mechanism_of(state: TrainingState) -> Mechanism:
    (mechanism,) = (method for method in state.methods if isinstance(method, Mechanism))
    return mechanism


class Small(nn.Module):
    """A model of the house's bricks: encoder, mean, linear."""

    def __init__(self):
        super().__init__()
        self.encoder, self.head = Encoder(16, 2, 2, 24), nn.Linear(16, 3)

    def forward(self, x_BLD: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(x_BLD).mean(1))


@dataclass(frozen=True)
class Cross(Objective):
    def loss(self, model, batch):
        logits_BC = model(batch["x"])
        total = nn.functional.cross_entropy(logits_BC, batch["y"], reduction="sum")
        return Loss(total, torch.tensor(len(logits_BC)))


@pytest.mark.filterwarnings("ignore:Full backward hook")  # opacus's own hooks
def test_gradients_of_single_examples_equal_those_of_opacus():
    from opacus import GradSampleModule

    torch.manual_seed(0)
    model = Small()
    x_BLD, y_B = torch.randn(5, 7, 16), torch.tensor([0, 1, 2, 1, 0])
    singles = [{"x": x_BLD[i : i + 1], "y": y_B[i : i + 1]} for i in range(5)]
    parameters = list(model.parameters())
    together, losses_B = vectorised_gradients(model, Cross(), singles, parameters)
    alone = [single_gradients(model, Cross(), single, parameters)[0] for single in singles]
    wrapped = GradSampleModule(model, loss_reduction="sum")
    total = nn.functional.cross_entropy(wrapped(x_BLD), y_B, reduction="sum")
    total.backward()
    assert float(losses_B.sum()) == pytest.approx(float(total.detach()), rel=1e-6)
    for place, parameter in enumerate(parameters):
        assert float((together[place] - parameter.grad_sample).abs().max()) < 1e-6
        one_by_one = torch.cat([grads[place] for grads in alone])
        assert float((one_by_one - parameter.grad_sample).abs().max()) < 1e-6


def test_clipped_sums_do_not_depend_on_how_gradients_are_made(tuning):
    found = []
    for way in (None, False):
        state = state_of(replace(tuning, dp_sgd=replace(QUIET, clip=0.05)))
        mechanism_of(state).gradients.vectorised = way
        state.model.train()
        metrics = state.gradient(state, 0, state.data[0])
        found.append([p.grad.clone() for group in state.groups for p in group.parameters])
        assert metrics["clipped"] > 0 and metrics["examples"] == len(state.data[0][0])
    assert max(float((a - b).abs().max()) for a, b in zip(*found, strict=True)) < 1e-12


def test_one_example_moves_the_sum_by_no_more_than_the_clip(tuning):
    state = state_of(replace(tuning, dp_sgd=replace(QUIET, clip=0.1)))
    singles = next(found for step in range(20) if len(found := state.data[step][0]) > 2)
    gradients = []
    for part in (singles, singles[1:], []):
        state.gradient(state, 0, [part])
        parts = [p.grad.flatten() for group in state.groups for p in group.parameters]
        gradients.append(torch.cat(parts) * state.run.schedule.batch)
    whole, without, noise = gradients
    assert 0 < float((whole - without).norm()) <= 0.1 + 1e-9
    assert float(noise.std()) == pytest.approx(0.1, rel=0.1)  # an empty step is noise alone
    assert float((whole - noise).norm()) > 0


def test_every_record_takes_part_by_a_coin_of_its_own():
    sizes = np.array([len(sampling.poisson_indices(50, 0.04, 1, step)) for step in range(2000)])
    assert sizes.mean() == pytest.approx(2.0, abs=0.1) and sizes.var() == pytest.approx(
        1.92, abs=0.2
    )
    assert (sizes == 0).any()
    seen = np.bincount(
        [i for step in range(2000) for _, i in sampling.poisson_indices(50, 0.04, 1, step)],
        minlength=50,
    )
    assert seen.min() > 40 and seen.max() < 125


def test_empty_steps_train_and_private_runs_resume_bit_equal(tuning, fit):
    rare = {"batch": 1, "steps": 8, "evaluate_every": 0, "patience": 0}
    whole = fit(tuning, "whole", schedule={**rare, "save_every": 4})
    lines = read_metrics(whole.path.parent / "metrics.jsonl")
    assert min(line["examples"] for line in lines) == 0
    again = fit(tuning, "again", schedule={**rare, "save_every": 4}, hardware={"micro_batch": 3})
    assert largest_difference(whole.weights(), again.weights()) == 0
    other = fit(tuning, "other", schedule=rare, seed=4)
    assert largest_difference(whole.weights(), other.weights()) > 0


def test_a_cut_private_run_resumes_bit_equal(tuning, fit, interrupted):
    whole = fit(tuning, "whole", schedule={"save_every": 2})
    with interrupted(5):
        fit(tuning, "cut", schedule={"save_every": 2})
    resumed = fit(tuning, "cut", resume=True, schedule={"save_every": 2})
    assert largest_difference(whole.weights(), resumed.weights()) == 0
    assert resumed.metrics == whole.metrics


def test_the_checkpoint_tells_what_was_spent(tuning, fit):
    made = fit(
        tuning, dp_sgd=DPSGD(epsilon=3.0, delta=1e-3, accountant="rdp"), schedule={"patience": 0}
    )
    told, batch = made.metrics["privacy"], tuning.schedule.batch
    records = len(
        made.objectives[0].examples(Checkpoint.open(made.path).run and _store(made), "train")
    )
    assert (
        told["sampling_rate"] == pytest.approx(batch / records)
        and told["private_steps"] == tuning.schedule.steps
    )
    assert 2.5 < told["epsilon"] <= 3.0 and told["delta"] == 1e-3
    again = spent(told["noise_multiplier"], 1e-3, batch / records, tuning.schedule.steps, "rdp")
    assert told["epsilon"] == again
    assert json.loads(json.dumps(told)) == told and "validation" in told["not_covered"]


def _store(made):
    from sciforge.core.data.store import Store

    return Store.open(made.run.data)


def test_the_two_accountants_agree_roughly():
    rdp, prv = (noise_for(2.0, 1e-5, 0.05, 100, name) for name in ("rdp", "prv"))
    assert prv < rdp < 1.25 * prv


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dp_sgd": DPSGD(noise=1.0, delta=0.5, accountant="rdp")}, "must be below"),
        ({"schedule": {"batch": 500}}, "training records are"),
        ({"subset": Subset(8)}, "all labels"),
        ({"hardware": {"compile": True}}, "each example's gradient"),
    ],
)
def test_what_would_break_the_promise_is_refused(tuning, fit, change, words):
    with pytest.raises(ConfigError, match=words):
        fit(tuning, **change)


def test_replay_is_refused(tiny, fit):
    with pytest.raises(ConfigError, match="one source"):
        fit(tiny.finetuning, dp_sgd=QUIET, replay=Replay(tiny.pretraining.data))


def test_a_head_solved_on_the_records_is_refused(tuning, fit):
    solved = replace(tuning.objective, warm_start=True)
    with pytest.raises(ConfigError, match="before the first step"):
        fit(tuning, objective=solved)


def test_a_codec_fitted_to_the_records_is_refused(fit, tmp_path):
    atoms = make_tiny("atoms", tmp_path)
    with pytest.raises(ConfigError, match="codec is fitted"):
        fit(atoms.pretraining, dp_sgd=QUIET)


def test_windows_of_records_are_refused(tiny, fit):
    with pytest.raises(ConfigError, match="windows of records"):
        fit(tiny.pretraining, dp_sgd=QUIET)


def test_a_start_that_learnt_the_same_records_without_noise_is_refused(tuning, fit):
    open_, again = (
        replace(tuning, dp_sgd=None),
        {
            "finetuning": Full(),
            "schedule": {"steps": 2, "patience": 0},
        },
    )
    plain = fit(open_, "plain", **again)
    with pytest.raises(ConfigError, match="without noise, which no later noise takes back"):
        fit(tuning, "private", init=plain.path, **again)
    noisy = fit(tuning, "noisy", **again)
    assert fit(tuning, "noisier", init=noisy.path, **again).metrics["privacy"]["private_steps"] == 2


def test_either_a_budget_or_a_noise():
    with pytest.raises(ConfigError, match="either"):
        DPSGD()
    with pytest.raises(ConfigError, match="either"):
        DPSGD(epsilon=1.0, noise=1.0)
    with pytest.raises(ConfigError, match="above 0"):
        DPSGD(epsilon=0.0)


def test_a_key_hides_the_noise(tuning, fit, tmp_path):
    key = tmp_path / "key"
    key.write_bytes(b"x" * 15)
    with pytest.raises(ConfigError, match="at least 16"):
        Mechanism.of(replace(QUIET, key=key), tuning, 60)
    key.write_bytes(b"x" * 16)
    assert Mechanism.of(replace(QUIET, key=key), tuning, 60).seed
    key.write_bytes(b"x" * 32)
    keyed = Mechanism.of(replace(QUIET, key=key), tuning, 60)
    plain = Mechanism.of(QUIET, tuning, 60)
    weights = [torch.zeros(50)]
    assert keyed.seed != plain.seed
    assert not torch.equal(next(keyed.noises(0, weights)), next(plain.noises(0, weights)))
    assert torch.equal(next(plain.noises(0, weights)), next(plain.noises(0, weights)))
    assert not torch.equal(next(plain.noises(0, weights)), next(plain.noises(1, weights)))
    assert keyed.summary()["privacy"]["noise_from"] == "a secret key"
