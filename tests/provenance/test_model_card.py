"""The model card: what it says is so, what nobody measured is called so, and Hugging Face's
tools can read its head.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_runs import Tiny, make_tiny

from sciforge import api, catalog
from sciforge.cli import main as cli
from sciforge.core.data.store import Store
from sciforge.core.files.atomic import sha256, write_json
from sciforge.core.training import loop
from sciforge.core.training.checkpoint import WEIGHTS, Checkpoint
from sciforge.provenance import model_card


@pytest.fixture(scope="module", params=["genomes", "molecules"])
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    made = make_tiny(request.param, tmp_path_factory.mktemp(request.param))
    model_card.write(made.checkpoint)
    model_card.write(loop.train(replace(made.finetuning, retention=made.pretraining.data)))
    return made


@pytest.fixture
def child(house: Tiny, tmp_path) -> Checkpoint:
    shutil.copytree(house.finetuning.out, tmp_path / "finetuning")
    return Checkpoint.open(tmp_path / "finetuning")


def sections(path: Path) -> dict[str, str]:
    """Return title -> text of a card's sections."""
    parts = path.read_text(encoding="utf-8").split("\n## ")
    return {part.partition("\n")[0]: part for part in parts[1:]}


def front(path: Path) -> str:
    """Return the YAML front matter."""
    before, head, _ = path.read_text(encoding="utf-8").split("---\n", 2)
    assert before == ""
    return head


def test_every_finished_run_has_a_card_that_tells_the_truth(house: Tiny, child: Checkpoint):
    for run in (house.pretraining, house.finetuning):
        assert model_card.is_whole(run.out / "final" / "README.md")
    path, store = child.path / "README.md", house.labelled
    text, parts = path.read_text(encoding="utf-8"), sections(path)
    assert f"{sum(p.numel() for p in child.build().parameters()):,} (" in text
    assert child.body["files"]["model.safetensors"] in text and child.provenance["parent"] in text
    for split in ("train", "validation", "test"):
        assert f"| {split} records | {len(store.split(split))} |" in parts["Data"]
    assert child.provenance["store"]["records"]["train"] == len(store.split("train"))
    for name, value in child.metrics.items():
        if isinstance(value, float):
            assert f"| {name} | {value:.6g} |" in parts["Metrics"]
    before, after = (child.metrics["retained"][when]["loss"] for when in ("before", "after"))
    assert f"| loss | {before:.6g} | {after:.6g} |" in parts["Forgetting"]
    assert "not measured" in parts["Privacy"] and "not measured" in parts["Sparsity"]
    assert "On a test split: not measured" in parts["Metrics"] and "flatters" in parts["Metrics"]
    assert f"seed {house.finetuning.seed}" in parts["Training"]
    assert str(house.finetuning.data.parent) not in text  # names, no places of the machine


def test_the_front_matter_is_what_hugging_face_reads(child: Checkpoint):
    yaml = pytest.importorskip("yaml")
    head = yaml.safe_load(front(child.path / "README.md"))
    assert head["license"] == "unknown" and head["library_name"] == "sciforge"
    assert (
        head["tags"][:2] == ["sciforge", child.body["domain"]]
        and head["base_model"] == "pretraining"
    )
    (result,) = head["model-index"][0]["results"]
    assert result["dataset"] == {
        "name": child.run.data.name,
        "type": "sciforge-store",
        "split": "validation",
    }
    found = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert set(found) == set(head["metrics"]) and found["loss"] == child.metrics["loss"]
    assert result["task"]["type"] == type(child.objectives[0]).__name__


def test_a_card_leaves_the_checkpoint_as_it_is(child: Checkpoint):
    before, text = sha256(child.path / "checkpoint.json"), (child.path / "README.md").read_text()
    model_card.write(child)
    assert (
        sha256(child.path / "checkpoint.json") == before
        and (child.path / "README.md").read_text() == text
    )
    (child.path / "README.md").unlink()
    Checkpoint.open(child.path).build()  # it may be deleted
    model_card.write(child)
    assert (child.path / "README.md").read_text() == text
    again = child.with_file("fisher-exact.safetensors", {"w": child.weights().popitem()[1]}, {})
    assert model_card.is_whole(model_card.write(again)) and Checkpoint.open(child.path)


def test_what_is_stated_is_kept(child: Checkpoint):
    source = {"name": "a", "licence": "CC BY 4.0", "citation": "Somebody (1999)"}
    assert "not stated" in sections(child.path / "README.md")["Data"]
    path = model_card.write(child, licence="apache-2.0", sources=[source])
    assert "license: apache-2.0\n" in front(path)
    assert "- **a**: Licence: CC BY 4.0. Citation: Somebody (1999)\n" in sections(path)["Data"]
    text = path.read_text()
    assert model_card.write(child).read_text() == text and "not stated" not in text


def test_reports_beside_it_fill_the_sections(child: Checkpoint, tmp_path):
    weights = child.body["files"]["model.safetensors"]
    report = {
        "weights_sha256": weights,
        "auc": 0.5123,
        "tpr": {"1 %": 0.02},
        "runs": [1, 2],
        "summary": "No leak seen.",
    }
    (child.path.parent / "audit").mkdir()
    write_json(child.path.parent / "audit" / "privacy.json", report)
    (tmp_path / "elsewhere").mkdir()
    write_json(tmp_path / "elsewhere" / "prune.json", {"area": 0.75})
    parts = sections(model_card.write(child, reports=tmp_path / "elsewhere"))
    assert "| auc | 0.5123 |" in parts["Privacy"] and "| tpr.1 % | 0.02 |" in parts["Privacy"]
    assert "No leak seen." in parts["Privacy"] and "not measured" not in parts["Privacy"]
    assert "| area | 0.75 |" in parts["Sparsity"]
    write_json(child.path.parent / "audit" / "privacy.json", {**report, "weights_sha256": "0" * 64})
    # a report on other weights
    assert "not measured" in sections(model_card.write(child))["Privacy"]
    (child.path.parent / "audit" / "privacy.json").write_text("{")
    assert "not measured" in sections(model_card.write(child))["Privacy"]


def test_the_command_writes_test_metrics(house: Tiny, child: Checkpoint, capsys):
    argv = [
        "card",
        str(child.path),
        "--data",
        str(house.finetuning.data),
        "--licence",
        "mit",
        "--device",
        "cpu",
    ]
    assert cli.main(argv) == 0 and capsys.readouterr().out.strip() == str(child.path / "README.md")
    metrics = api.evaluate(child.path, house.finetuning.data, device="cpu")
    for text in (
        sections(child.path / "README.md")["Metrics"],
        sections(model_card.write(child))["Metrics"],
    ):
        assert (
            f"test split of {house.finetuning.data.name}, {len(house.labelled.split('test'))}"
            " records" in text
        )
        assert all(f"| {name} | {value:.6g} |" in text for name, value in metrics.items())
    Checkpoint.open(child.path)


def test_training_by_the_command_names_the_licence_of_the_data(tiny: Tiny, tmp_path, monkeypatch):
    file = Path(Store.open(tiny.pretraining.data).index["preparer"]["files"][0])
    lines = [
        'summary = "s"',
        'kind = "bundled"',
        'licence = "CC0"',
        'citation = "Me"',
        'reader = "r"',
        'split = "s"',
    ]
    lines += [
        f'file = "{file.name}"',
        f'sha256 = "{sha256(file)}"',
        f"bytes = {file.stat().st_size}",
    ]
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "mine.toml").write_text("\n".join(lines))
    monkeypatch.setattr(catalog, "datasets_folder", lambda: tmp_path / "cards")
    made = api.train(replace(tiny.pretraining, out=tmp_path / "run"))
    assert "- **mine**: Licence: CC0. Citation: Me\n" in sections(made.path / "README.md")["Data"]
    shutil.move(tiny.pretraining.data, tmp_path / "gone")
    try:
        # the store has gone, the card has not
        assert "Licence: CC0" in sections(api.card(made.path))["Data"]
    finally:
        shutil.move(tmp_path / "gone", tiny.pretraining.data)


def test_a_text_with_a_bar_does_not_break_a_table(child: Checkpoint):
    body = {**child.body, "provenance": {**child.provenance, "platform": "a|b\nc"}}
    path = model_card.write(Checkpoint(child.path, body))
    assert "| platform | a\\|b c |" in path.read_text()


@pytest.mark.parametrize("name", sorted(catalog.checkpoint_names()))
def test_every_bundled_checkpoint_can_have_a_card(name: str, tmp_path):
    copy = shutil.copytree(catalog.locate(name), tmp_path / name)
    path = model_card.write(Checkpoint.open(copy))
    assert (
        model_card.is_whole(path)
        and f"# {name}\n" in path.read_text()
        and json.dumps(name) in f'"{name}"'
    )


@pytest.mark.parametrize("name", catalog.checkpoint_names())
def test_every_bundled_checkpoint_carries_a_card_of_its_own_weights(name):
    made = Checkpoint.open(catalog.locate(name))
    path = made.path / model_card.NAME
    assert model_card.is_whole(path) and made.body["files"][WEIGHTS] in path.read_text(
        encoding="utf-8"
    )
    assert "not stated" not in path.read_text(encoding="utf-8")  # where the data come from
