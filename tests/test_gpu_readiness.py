"""Every domain on a pretend GPU (pretend_cuda.py): no mixed devices, few waits of the host in a
step.
"""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gpu_runs import train_on_gpu
from pretend_cuda import pretend_cuda
from tiny_runs import ROOT, load_file

from sciforge.core.data.store import Store
from sciforge.core.domain import discover, get_domain
from sciforge.core.training import loop
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.distributed import Engine
from sciforge.core.training.model import Model
from sciforge.core.training.run import Hardware

pytestmark = pytest.mark.slow


# How often the host waits for the device in a training step. A number may shrink and must not grow.
# Two are the loop's own: for the loss, which all processes share, and for the norm of the gradient.
BUDGET = {
    "atoms energy-forces": 2,
    "atoms denoise": 2,
    "atoms masked-elements": 2,
    "genomes masked": 2,
    "genomes replaced": 2,
    "genomes classify": 2,
    "heat campaign-evidence": 2,
    "heat nusselt": 2,
    "images inpaint": 2,
    "images relative": 2,
    "images classify-images": 2,
    "molecules descriptors": 2,
    "molecules masked-atoms": 2,
    "molecules descriptors-masked": 2,
    "molecules grow": 8,  # looks whether all molecules are complete, from as many steps as atoms on
    "molecules properties": 2,
    "text masked-words": 2,
    "text replaced-words": 2,
    "text documents": 2,
}
GENERATION_BUDGET = 48  # of four molecules: looks every 8 steps at which are done, and their copies
SELF_SUPERVISED = {
    "atoms": {"denoise": {}, "masked-elements": {}},
    "genomes": {"replaced": {}},
    "images": {"relative": {"piece": 3}},
    "molecules": {"masked-atoms": {}, "descriptors-masked": {}, "grow": {}},
    "text": {"replaced-words": {"length": 32}},
}


@dataclass(frozen=True)
class OnGpu:
    """The tiny runs of a domain, trained on the pretend GPU.

    Args:
        name: of the domain.
        pretraining, finetuning: the checkpoints.
        waits: name of the objective -> what the host waited for in its costliest step.
    """

    name: str
    pretraining: Checkpoint
    finetuning: Checkpoint
    waits: dict[str, Counter[str]]


@pytest.fixture(scope="module", params=sorted(discover()))
def on_gpu(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> OnGpu:
    folder, name = tmp_path_factory.mktemp(request.param), request.param
    _, pretraining, finetuning = load_file(ROOT / "tests" / name / "contract.py").tiny(folder)
    objectives, waits, checkpoints = get_domain(name).objectives, {}, []
    names = {kind: label for label, kind in objectives.items()}
    with pytest.MonkeyPatch.context() as patch:
        for run in (pretraining, finetuning):
            label = names[type(run.objective)]
            checkpoint, waits[label] = train_on_gpu(run, label, patch)
            checkpoints.append(checkpoint)
        for label, options in SELF_SUPERVISED.get(name, {}).items():
            run = replace(pretraining, out=folder / label, objective=objectives[label](**options))
            waits[label] = train_on_gpu(run, label, patch)[1]
    return OnGpu(name, *checkpoints, waits)


def test_the_host_seldom_waits_in_a_step(on_gpu: OnGpu):
    over = {
        label: dict(waits)
        for label, waits in on_gpu.waits.items()
        if waits.total() > BUDGET[f"{on_gpu.name} {label}"]
    }
    assert not over


def test_a_gpu_learns_what_a_cpu_learns(on_gpu: OnGpu, tmp_path: Path):
    """The first loss of both, the GPU's in bfloat16."""
    run = on_gpu.pretraining.run
    cpu = loop.train(replace(run, out=tmp_path / "cpu", hardware=Hardware(device="cpu", threads=1)))
    first = [checkpoint.path.parent / "metrics.jsonl" for checkpoint in (cpu, on_gpu.pretraining)]
    losses = [float(path.read_text().split('"loss":')[1].split(",")[0]) for path in first]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_laws_hold_on_a_gpu(on_gpu: OnGpu):
    with pretend_cuda():
        broken = [
            law
            for law in Model.load(on_gpu.pretraining.path, device="cuda").check()
            if not law.holds
        ]
    assert not broken


def test_predictions_metrics_and_embeddings(on_gpu: OnGpu):
    """The same as on a CPU but for the precision of bfloat16."""
    store = Store.open(on_gpu.finetuning.run.data)
    answers = []
    for device in ("cuda", "cpu"):
        with pretend_cuda():
            model = Model.load(on_gpu.finetuning.path, device=device)
            records = model.objective.examples(store, "test")
            metrics = model.evaluate(store)
            embed = model.domain.embed or (lambda network, batch: batch["x"])
            states = [embed(model.network, batch).detach() for batch in model._batches(records)]
            assert all(state.device.type == device for state in states)
            arrays = [state.float().cpu().numpy() for state in states]
            answers.append((model.outputs(records), metrics, arrays))
    (outputs, metrics, embedded), (outputs_cpu, metrics_cpu, embedded_cpu) = answers
    assert outputs and outputs.keys() == outputs_cpu.keys() and metrics.keys() == metrics_cpu.keys()
    for name, values in outputs_cpu.items():
        for one, other in zip(outputs[name], values, strict=True):
            scale = np.abs(np.asarray(other, float)).max(initial=1.0)
            assert np.allclose(
                np.asarray(one, float), np.asarray(other, float), atol=0.05 * scale
            ), name
    for one, other in zip(embedded, embedded_cpu, strict=True):
        assert np.allclose(one, other, atol=0.05 * np.abs(other).max())


def test_prediction_is_in_bfloat16_and_float32_products_as_asked(tiny, fit, monkeypatch):
    model = Model.load(fit(tiny.finetuning, "cpu", hardware={"precision": "float32"}).path, "cpu")
    records = model.objective.examples(Store.open(tiny.finetuning.data), "test")
    exact = model.outputs(records)["probability"]
    with pretend_cuda():
        rounded = Model.load(model.checkpoint.path, "cuda").outputs(records)["probability"]
    assert 0 < np.abs(rounded - exact).max() < 0.05
    products = []
    with pretend_cuda(), monkeypatch.context() as patch:
        take_step = loop.take_step
        note = torch.get_float32_matmul_precision
        patch.setattr(loop, "take_step", lambda *args: products.append(note()) or take_step(*args))
        for tf32 in (False, True):
            hardware = {"device": "cuda", "precision": "float32", "tf32": tf32}
            fit(tiny.finetuning, f"tf32-{tf32}", hardware=hardware, schedule={"steps": 1})
    assert products == ["highest", "high"] and note() == "highest"


def test_a_save_gathers_the_weights_once(tiny, fit, monkeypatch):
    calls: list[int] = []
    full_state = Engine.full_state

    def counted(self: Engine, model: Any) -> dict[str, torch.Tensor]:
        calls.append(1)
        return full_state(self, model)

    monkeypatch.setattr(Engine, "full_state", counted)
    often = {"save_every": 2, "evaluate_every": 0, "patience": 0}
    fit(tiny.pretraining, schedule=often)  # 6 steps: two saves and the last
    assert len(calls) == 3
    # and the averaged weights
    fit(tiny.pretraining, "average", schedule={**often, "ema_decay": 0.5})
    assert len(calls) == 3 + 6


def test_generation_draws_what_a_cpu_draws(tmp_path: Path):
    """The same molecules with the same seed; and the host waits for few of the many steps."""
    _, pretraining, _ = load_file(ROOT / "tests/molecules/contract.py").tiny(tmp_path)
    objective = get_domain("molecules").objectives["grow"]()
    schedule = replace(pretraining.schedule, steps=2, evaluate_every=0)
    run = replace(pretraining, objective=objective, schedule=schedule)
    checkpoint = loop.train(replace(run, hardware=Hardware(device="cpu", threads=1)))
    drawn = []
    for device in ("cpu", "cuda"):
        with pretend_cuda() as gpu:
            model = Model.load(checkpoint.path, device)
            before = gpu.waits
            drawn.append(model.generate(4, seed=0).to_pandas())
            waits = gpu.waits - before
    assert drawn[1].smiles.tolist() == drawn[0].smiles.tolist()
    assert 0 < waits <= GENERATION_BUDGET, gpu.syncs
