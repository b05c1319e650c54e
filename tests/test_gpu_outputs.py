"""Methods of training, other objectives and all outputs of the command line on a pretend GPU."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from gpu_runs import train_on_gpu
from pretend_cuda import pretend_cuda
from tiny_runs import ROOT, Tiny, load_file, make_tiny

from sciforge.cli import main as cli
from sciforge.core.data.store import prepare
from sciforge.core.domain import discover, get_domain
from sciforge.core.learners import calibration
from sciforge.core.training.loop import train
from sciforge.core.training.run import (
    DPSGD,
    EWC,
    L2SP,
    Hardware,
    LoRA,
    Pruning,
    Replay,
    Run,
    Teacher,
)

pytestmark = pytest.mark.slow


CPU = Hardware(device="cpu", threads=1)
# How often the host waits in a step: the two waits of the loop, and what a method adds.
METHODS: dict[str, tuple[int, Callable[[Tiny], dict[str, Any]]]] = {
    "lora": (2, lambda tiny: {"finetuning": LoRA(rank=2)}),
    "l2sp": (2, lambda tiny: {"regularization": L2SP()}),
    "l2sp proximal": (2, lambda tiny: {"regularization": L2SP(step="proximal")}),
    "ewc": (2, lambda tiny: {"regularization": EWC(data=tiny.pretraining.data, examples=4)}),
    "replay": (3, lambda tiny: {"replay": Replay(tiny.pretraining.data, share=0.25)}),
    "pruning": (2, lambda tiny: {"pruning": Pruning(share=0.5)}),
    "gradual pruning": (2, lambda tiny: {"pruning": Pruning(share=0.5, ramp=0.9, cuts=2)}),
    "distillation": (
        3,  # whether the teacher's head has trees
        lambda tiny: {"teacher": Teacher(tiny.finetuned)},
    ),
    "dp_sgd": (2, lambda tiny: {"dp_sgd": DPSGD(noise=1.0), "replay": None}),
}


@dataclass(frozen=True)
class Finetuned(Tiny):
    """Tiny runs with a fine-tuned checkpoint.

    Args:
        finetuned: its folder.
    """

    finetuned: Path = field(default=Path())


@pytest.fixture(scope="module")
def genomes(tiny: Tiny, tmp_path_factory) -> Finetuned:
    run = replace(tiny.finetuning, out=tmp_path_factory.mktemp("finetuned"), hardware=CPU)
    return Finetuned(**vars(tiny), finetuned=train(run).path)


@pytest.mark.parametrize("ema", [0.0, 0.5])
@pytest.mark.parametrize("method", METHODS)
def test_methods_mix_no_devices_and_seldom_wait(
    method: str, ema: float, genomes: Finetuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    budget, changes = METHODS[method]
    schedule = replace(genomes.finetuning.schedule, kind="constant", ema_decay=ema, patience=0)
    run = replace(genomes.finetuning, out=tmp_path / "run", schedule=schedule, **changes(genomes))
    checkpoint, waits = train_on_gpu(run, method, monkeypatch)
    assert checkpoint.step == 3 and waits.total() <= budget, waits


# Objectives that no tiny run of a domain has: what a training step of each waits for.
def _tags_of_words(folder: Path) -> Run:
    from sciforge.text import BertConfig, Documents, TagWords, TextCodec

    rows = "Mary B-per\nsaw O\nAnn B-per\n. O\n\nIn O\nParis B-loc\nAnn B-per\nslept O\n\n"
    (folder / "a.conll").write_text(rows * 12)
    prepare(Documents(files=folder / "a.conll", shares=(0.6, 0.2, 0.2)), folder / "tags")
    return _run(
        folder,
        "tags",
        TagWords(length=32),
        model=BertConfig(width=16, depth=2, heads=2, hidden=32),
        codec=TextCodec(size=40, length=48),
    )


def _values_of_documents(folder: Path) -> Run:
    from sciforge.text import BertConfig, Documents, RateDocuments, TextCodec

    rows = [f"Koko number {n} dafu,{n % 7}.5" for n in range(60)]
    (folder / "rated.csv").write_text("text,score\n" + "\n".join(rows) + "\n")
    preparer = Documents(
        files=folder / "rated.csv", label_column="score", numeric=True, shares=(0.6, 0.2, 0.2)
    )
    prepare(preparer, folder / "rated")
    return _run(
        folder,
        "rated",
        RateDocuments(length=32),
        model=BertConfig(width=16, depth=2, heads=2, hidden=32),
        codec=TextCodec(size=40, length=48),
    )


def _images(kind: str, folder: Path) -> Run:
    from sciforge.images import (
        DetectObjects,
        ImageCodec,
        RegressImages,
        SegmentPatches,
        VitConfig,
    )

    stores = load_file(ROOT / "tests/images/image_stores.py")
    if kind == "regress-images":
        store, objective = stores.coloured(folder, 60, numeric=True), RegressImages(bins=1)
    else:
        store = stores.scenes_store(folder, 40, segments=kind == "segment")
        objective = DetectObjects() if kind == "detect" else SegmentPatches()
    model = VitConfig(width=16, depth=2, heads=2, hidden=32)
    return _run(folder, store.path.name, objective, model=model, codec=ImageCodec(patch=4))


def _run(folder: Path, store: str, objective: Any, **parts: Any) -> Run:
    from sciforge.core.training.run import Schedule

    schedule = Schedule(steps=3, batch=8, lr=1e-3)
    return Run(
        data=folder / store,
        out=folder / "run",
        objective=objective,
        schedule=schedule,
        hardware=CPU,
        **parts,
    )


OTHERS: dict[str, Callable[[Path], Run]] = {
    "text word-tags": _tags_of_words,
    "text document-values": _values_of_documents,
    "images regress-images": lambda folder: _images("regress-images", folder),
    "images detect": lambda folder: _images("detect", folder),
    "images segment": lambda folder: _images("segment", folder),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_objectives_mix_no_devices_and_seldom_wait(name: str, tmp_path: Path, monkeypatch):
    _, waits = train_on_gpu(OTHERS[name](tmp_path), name, monkeypatch)
    assert waits.total() <= 2, waits


# Outputs ------------------------------------------------------------------------------------------


def _atoms(folder: Path, tiny: Tiny, tuned: Path) -> dict[str, list[str]]:
    file = str(folder / "new.xyz")
    return {
        "energies": [file],
        "uncertain": [file, "--count", "4", "--members", str(tiny.checkpoint.path)],
        "export": [],
    }


def _genomes(folder: Path, tiny: Tiny, tuned: Path) -> dict[str, list[str]]:
    (folder / "some.fa").write_text(f">a\n{'ACGTTGCA' * 30}\n")
    head = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    base = "ACGTTGCA" * 30
    (folder / "some.vcf").write_text(
        f"{head}a\t100\t.\t{base[99]}\tA\t.\t.\t.\n".replace("A\tA", "A\tC")
    )
    genome = ["--genome", str(folder / "some.fa")]
    window = ["--window", "40"]
    return {
        "classes": [str(folder / "some.fa"), *window],
        "embeddings": [str(folder / "some.fa"), *window],
        "scan": [*genome, *window],
        "variants": [*genome, "--variants", str(folder / "some.vcf"), *window],
        "mutagenesis": [*genome, "--region", "a:100-105", *window],
        "reliability": ["--data", str(tiny.finetuning.data), "--split", "train"],
    }


def _heat(folder: Path, tiny: Tiny, tuned: Path) -> dict[str, list[str]]:
    file = str(folder / "new.csv")
    return {"nusselt": [file], "formula": [], "next-experiment": [file, "--count", "2"]}


def _image_files(folder: Path, tiny: Tiny, tuned: Path) -> dict[str, list[str]]:
    file = str(folder / "bars.npy")
    return {
        "image-labels": [file],
        "image-embeddings": [file],
        "attention": [file, "--count", "2"],
        "reconstructions": [file, "--count", "2"],
        "detections": [],
        "segments": [],
        "reliability": ["--data", str(tiny.finetuning.data), "--split", "train"],
    }


def _molecules(folder: Path, tiny: Tiny, tuned: Path) -> dict[str, list[str]]:
    (folder / "some.smi").write_text("CCO\nCCN\nc1ccccc1\n")
    file = str(folder / "some.smi")
    return {"properties": [file], "likelihoods": [file], "generate": ["--num", "2"]}


def _text(folder: Path, tiny: Tiny, tuned: Path) -> dict[str, list[str]]:
    (folder / "some.txt").write_text("Koko bada.\nTata dafu.\n")
    file = str(folder / "some.txt")
    return {
        "document-scores": [file],
        "document-embeddings": [file],
        "roc": ["--data", str(tiny.finetuning.data)],
        "fill-masks": ["--texts", "Koko [MASK] bada."],
        "tagged": [file],
        "reliability": ["--data", str(tiny.finetuning.data), "--split", "train"],
    }


INPUTS = {
    "atoms": _atoms,
    "genomes": _genomes,
    "heat": _heat,
    "images": _image_files,
    "molecules": _molecules,
    "text": _text,
}

# Which checkpoint an output needs, where the fine-tuned one is not it.
PRETRAINED = (
    "genomes variants",
    "genomes mutagenesis",
    "images reconstructions",
    "text fill-masks",
)
SPECIAL = {
    "images detections": "images detect",
    "images segments": "images segment",
    "text tagged": "text word-tags",
}
GROWN = ("molecules generate", "molecules likelihoods")


def _special(label: str, output: str, folder: Path, tiny: Tiny) -> tuple[Path, list[str]]:
    """Return the checkpoint of an output that no tiny run can give, and its input where it is
    another.
    """
    folder.mkdir()
    if label in GROWN:
        objective = get_domain("molecules").objectives["grow"]()
        schedule = replace(tiny.pretraining.schedule, steps=2, evaluate_every=0)
        run = replace(tiny.pretraining, out=folder / "run", objective=objective, schedule=schedule)
        return train(replace(run, hardware=CPU)).path, []
    checkpoint = train(OTHERS[SPECIAL[label]](folder)).path
    pictures = sorted(map(str, (folder / "pictures").glob("*.png")))[:3]
    return checkpoint, pictures


@pytest.mark.parametrize("name", sorted(discover()))
def test_every_output_of_the_command_line(name: str, tmp_path: Path, capsys, monkeypatch):
    tiny = make_tiny(name, tmp_path)
    monkeypatch.setattr(calibration, "MIN_RECORDS", 10)  # tiny datasets have fewer than 50
    tuned = train(replace(tiny.finetuning, hardware=CPU)).path
    inputs = INPUTS[name](tmp_path, tiny, tuned)
    assert inputs.keys() == get_domain(name).outputs.keys()
    monkeypatch.chdir(tmp_path)
    for output, words in inputs.items():
        label = f"{name} {output}"
        if output == "export":  # traces fake tensors, which a torch without CUDA refuses
            continue
        checkpoint = tiny.checkpoint.path if label in PRETRAINED else tuned
        if label in SPECIAL or label in GROWN:
            checkpoint, more = _special(label, output, tmp_path / output, tiny)
            words = [*words, *more]
        command = ["predict", str(checkpoint), f"{name}/{output}", *words]
        with pretend_cuda() as gpu:
            code = cli.main([*command, "--device", "cuda"])
        text, errors = capsys.readouterr()
        assert code == 0 and text, (label, errors)
        assert gpu.waits or output == "formula", label  # it did run there
