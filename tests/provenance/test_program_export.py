"""Exported programs answer as the model does, for batches of any size; what cannot be exported
says so in one line.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_runs import Tiny, make_tiny

from sciforge.core.training import loop
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.model import Model
from sciforge.errors import CheckpointError, ConfigError, DataError, MissingExtra
from sciforge.provenance import export as exports
from sciforge.provenance.export import export, real_batches, settled


def learnt(name: str, folder: Path) -> tuple[Tiny, Checkpoint]:
    domain = make_tiny(name, folder)
    return domain, loop.train(domain.finetuning)


@pytest.fixture(scope="module", params=["genomes", "molecules"])
def predictor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    _, made = learnt(request.param, tmp_path_factory.mktemp(request.param))
    return Model.load(made.path, device="cpu")


def test_a_program_answers_as_the_model_does(predictor: Model, tmp_path):
    found = export(predictor, tmp_path / "model.pt2")
    assert max(found.differences.values()) <= 1e-5 and found.records >= 20
    assert all(shape[0] == "*" for shape in found.inputs.values())
    program = torch.export.load(tmp_path / "model.pt2").module()
    for batch in real_batches(predictor, None):
        with torch.no_grad():
            answers, expected = (
                program(batch),
                predictor.objective.predict(predictor.network, batch),
            )
        for name, value in expected.items():
            assert torch.allclose(answers[name], value, atol=1e-5, rtol=1e-5), name
    assert "differs by" in found.table().text()


def test_a_program_that_differs_is_not_written(predictor: Model, tmp_path, monkeypatch):
    def off(batch):  # what the file holds, whatever the program in memory says
        found = predictor.objective.predict(predictor.network, batch)
        return {
            name: value + 3e-5 * value.abs().max().clamp(min=1) for name, value in found.items()
        }

    monkeypatch.setattr(exports, "traced", lambda *_, **__: None)
    monkeypatch.setattr(torch.export, "save", lambda program, handle: handle.write(b"program"))
    with pytest.raises(ConfigError, match="cannot be exported"):  # it does not load
        export(predictor, tmp_path / "model.pt2")
    monkeypatch.setattr(torch.export, "load", lambda handle: SimpleNamespace(module=lambda: off))
    with pytest.raises(CheckpointError, match="differs by"):
        export(predictor, tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


def test_settling_leaves_the_model_as_it_is(predictor: Model):
    before = {name: tensor.clone() for name, tensor in predictor.network.state_dict().items()}
    copy = settled(predictor.network, widen=True)
    assert all(torch.equal(t, before[name]) for name, t in predictor.network.state_dict().items())
    assert not [b for b in copy.buffers() if b.ndim == 0 or b.dtype in (torch.int16, torch.int32)]


def test_what_cannot_be_exported_is_one_line(tmp_path):
    atoms, heat = (make_tiny(name, _made(tmp_path / name)) for name in ("atoms", "heat"))
    with pytest.raises(ConfigError, match="derivatives.*predict CHECKPOINT export"):
        export(Model.load(atoms.checkpoint.path, device="cpu"), tmp_path / "a.pt2")
    fitted = loop.train(heat.finetuning)
    with pytest.raises(ConfigError, match="cannot be exported.*use `sciforge predict") as told:
        export(Model.load(fitted.path, device="cpu"), tmp_path / "h.pt2")
    assert "\n" not in str(told.value) and not list(tmp_path.glob("*.pt2"))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_mistakes_are_one_line(tiny, predictor: Model, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="predicts nothing yet"):
        export(Model.load(tiny.checkpoint.path, device="cpu"), tmp_path / "m.pt2")
    with pytest.raises(ConfigError, match=r"\.pt2 or \.onnx"):
        export(predictor, tmp_path / "m.zip")
    with pytest.raises(DataError, match="--data"):
        export(predictor, tmp_path / "m.pt2", tmp_path / "nowhere")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match=r"sciforge\[onnx\]"):
        export(predictor, tmp_path / "m.onnx")


def test_onnx_answers_as_the_model_does(tiny, fit, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    found = export(Model.load(fit(tiny.finetuning).path, device="cpu"), tmp_path / "model.onnx")
    assert (
        max(found.differences.values()) <= 1e-5
        and (tmp_path / "model.onnx").stat().st_size == found.bytes
    )
