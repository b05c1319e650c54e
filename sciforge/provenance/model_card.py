"""The model card: README.md in a checkpoint's folder, Markdown with the YAML front matter that
Hugging Face reads.

It is written when a run finishes and again by `sciforge card`, always from what lies in the folder
and beside it. It is deletable and no part of the checkpoint's own digests, so that rewriting it
leaves checkpoint.json, by whose digest children know their parent, as it is. Its last line holds
the digest of the lines above.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sciforge.core.data.store import Store
from sciforge.core.files.atomic import one_line, read_json, replace_file, replace_json
from sciforge.core.training.checkpoint import WEIGHTS, Checkpoint
from sciforge.core.training.run import Full, to_json
from sciforge.errors import CheckpointError

NAME = "README.md"
UNKNOWN = "unknown"  # Hugging Face's own word for a licence that nobody has stated
SEAL = re.compile(r"<!-- sha256 of the lines above: ([0-9a-f]{64}) -->\n")
SOURCES = re.compile(r"<!-- sources -->\n(.*?)<!-- end of sources -->\n", re.DOTALL)
# Section -> names of the reports that fill it, and the command that makes one.
REPORTS = {
    "Privacy": (("privacy",), "sciforge privacy"),
    "Sparsity": (("prune", "distill"), "sciforge prune"),
    "Forgetting": (("forgetting",), "sciforge forgetting"),
}
MAX_SCALARS = 24  # of a report that are shown
NOT_SHOWN = ("summary", "spec", "weights_sha256")


def keep_evaluation(
    checkpoint: Checkpoint, store: Store, split: str, metrics: Mapping[str, float]
) -> Path:
    """Write metrics on a split into the checkpoint's folder, as evaluation.json, for its card."""
    path = checkpoint.path / "evaluation.json"
    body = {
        "data": store.path.name,
        "split": split,
        "records": len(checkpoint.objectives[0].examples(store, split)),
    }
    body |= {
        "metrics": dict(metrics),
        "weights_sha256": checkpoint.body["files"][WEIGHTS],
        "shards": store.digests(),
    }
    with one_line(path):
        replace_json(path, body)
    return path


def is_whole(path: Path) -> bool:
    """Whether a card is as sciforge wrote it, by the digest in its last line."""
    text = path.read_bytes().decode("utf-8", "backslashreplace")
    above, line = text[: text.rfind("<!-- sha256")], text[max(text.rfind("<!-- sha256"), 0) :]
    match = SEAL.fullmatch(line)
    return match is not None and match[1] == hashlib.sha256(above.encode()).hexdigest()


def write(
    checkpoint: Checkpoint,
    *,
    licence: str | None = None,
    sources: Sequence[Mapping[str, str]] = (),
    reports: Path | None = None,
) -> Path:
    """Write the card of a checkpoint into its folder and return its path.

    Args:
        checkpoint: the checkpoint.
        licence: of the model, as Hugging Face spells it (`apache-2.0`); None keeps what the card
            says, else `unknown`.
        sources: where the data come from: mappings of name, licence and citation; empty keeps what
            the card says.
        reports: a folder of reports of other measurements, searched beside the usual places.

    Raises:
        DataError: the folder cannot be written.
    """
    path = checkpoint.path / NAME
    old = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    stated = re.search(r"^license: (\S+)$", old, re.MULTILINE)
    licence = licence or (stated[1] if stated else UNKNOWN)
    kept = SOURCES.search(old)
    origin = "".join(_sources(sources)) if sources or not kept else kept[1]
    text = (
        "\n".join([*_front(checkpoint, licence), *_body(checkpoint, licence, origin, reports)])
        + "\n"
    )
    text += f"<!-- sha256 of the lines above: {hashlib.sha256(text.encode()).hexdigest()} -->\n"
    with one_line(path):
        replace_file(path, lambda work: work.write_text(text, encoding="utf-8", newline="\n"))
    return path


def name_of(checkpoint: Checkpoint) -> str:
    """Return what to call a checkpoint: its folder's name, or that of its run's."""
    folder = checkpoint.path.resolve()
    return (
        folder.parent.name
        if folder.name == "final" or folder.name.startswith("step-")
        else folder.name
    )


def _quoted(text: Any) -> str:
    """Return text as a YAML scalar; a JSON string is one."""
    return json.dumps(str(text), ensure_ascii=False)


def _scalars(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {
        k: v for k, v in metrics.items() if isinstance(v, float | int) and not isinstance(v, bool)
    }


def _front(checkpoint: Checkpoint, licence: str) -> Iterator[str]:
    """Yield the YAML front matter: licence, library, tags, parent, and the validation metrics as
    a model index.
    """
    objective = type(checkpoint.objectives[0]).__name__
    yield from ("---", f"license: {licence}", "library_name: sciforge", "tags:", "- sciforge")
    kinds = dict.fromkeys(str(body["type"]) for _, body in _objectives(checkpoint))
    yield from (f"- {_quoted(tag)}" for tag in (checkpoint.body["domain"], *kinds))
    if checkpoint.run.init:
        yield f"base_model: {_quoted(_folder_name(checkpoint.run.init))}"
    if metrics := {
        k: v for k, v in _scalars(checkpoint.metrics).items() if v == v and abs(v) != float("inf")
    }:
        yield "metrics:"
        yield from (f"- {_quoted(name)}" for name in metrics)
        yield from (
            "model-index:",
            f"- name: {_quoted(name_of(checkpoint))}",
            "  results:",
            "  - task:",
        )
        yield f"      type: {_quoted(objective)}"
        yield from (
            "    dataset:",
            f"      name: {_quoted(checkpoint.run.data.name)}",
            "      type: sciforge-store",
        )
        yield from ("      split: validation", "    metrics:")
        for name, value in metrics.items():
            yield from (f"    - type: {_quoted(name)}", f"      value: {value!r}")
    yield "---"


def _objectives(checkpoint: Checkpoint) -> list[tuple[str, Any]]:
    """Return name and settings of every task; a replayed objective is told with the training."""
    if not checkpoint.tasks:
        return [("", checkpoint.body["objectives"][0])]
    return list(zip(checkpoint.tasks, checkpoint.body["objectives"], strict=True))


def _folder_name(path: Path) -> str:
    return path.parent.name if path.name == "final" else path.name


def _body(checkpoint: Checkpoint, licence: str, origin: str, reports: Path | None) -> Iterator[str]:
    run, name = checkpoint.run, name_of(checkpoint)
    kind = " and ".join(str(objective["type"]) for _, objective in _objectives(checkpoint))
    start = (
        f"fine-tuned from {_folder_name(run.init)}" if run.init else "trained from random weights"
    )
    yield (
        f"\n# {name}\n\nA model of the domain `{checkpoint.body['domain']}`, {start} for `{kind}`"
        " with sciforge."
    )
    yield (
        "This card is made from the checkpoint and the reports beside it; what nobody measured is"
        " called so."
    )
    parameters = list(checkpoint.build(whole=True).parameters())
    matrices, count = [p for p in parameters if p.ndim > 1], sum(p.numel() for p in parameters)
    size = (checkpoint.path / WEIGHTS).stat().st_size
    rows = {
        "model": _inline(checkpoint.body["model"]),
        **{
            f"objective of task {name}" if name else "objective": _inline(objective)
            for name, objective in _objectives(checkpoint)
        },
    }
    rows |= {
        "codec": _inline(checkpoint.body["codec"]),
        "parameters": f"{count:,} ({size / 1e6:.2f} MB with buffers)",
    }
    rows |= {"sha256 of the weights": f"`{checkpoint.body['files'][WEIGHTS]}`", "licence": licence}
    yield from _table(("what", "value"), rows.items())
    yield (
        f"\n```python\nimport sciforge as sf\n\nmodel = sf.load({json.dumps(name)})  # the folder's"
        " path\n```"
    )
    if checkpoint.tasks:
        yield (
            f"\nIt learnt {len(checkpoint.tasks)} tasks together; `sf.load(..., task=NAME)` opens"
            f" one, by default {checkpoint.tasks[0]}."
        )
    yield from _data(checkpoint, origin)
    yield from _training(checkpoint)
    yield from _metrics(checkpoint, reports)
    yield from _limits(checkpoint)
    yield from _privacy(checkpoint, reports)
    zeros, among = sum(int((p == 0).sum()) for p in matrices), sum(p.numel() for p in matrices)
    yield "\n## Sparsity\n"
    yield f"{zeros / max(among, 1):.2%} of the {among:,} weights in matrices are zero."
    yield from _report("Sparsity", checkpoint, reports, "Quality against sparsity: not measured")
    yield from _forgetting(checkpoint, reports)
    yield from _provenance(checkpoint)


def _inline(value: Any) -> str:
    """Return settings as one line of code, long ones cut."""
    text = json.dumps(value, ensure_ascii=False)
    return f"`{text if len(text) <= 600 else text[:600] + ' ...'}`"


def _table(head: Sequence[str], rows: Any) -> Iterator[str]:
    yield f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}"
    for row in rows:
        yield (
            "| "
            + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in row)
            + " |"
        )


def _sources(sources: Sequence[Mapping[str, str]]) -> Iterator[str]:
    for source in sources:
        words = ". ".join(
            f"{key.capitalize()}: {source[key]}"
            for key in ("licence", "citation")
            if source.get(key)
        )
        yield f"- **{source['name']}**: {words}\n"
    if not sources:
        yield (
            "Source and licence of the data: not stated (no dataset card has the digest of these"
            " files).\n"
        )


def _data(checkpoint: Checkpoint, origin: str) -> Iterator[str]:
    about, digests = (
        checkpoint.provenance.get("store") or {},
        checkpoint.provenance.get("data") or {},
    )
    whole = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
    yield "\n## Data"
    rows = {
        "store": checkpoint.run.data.name,
        "files of the store": f"{len(digests)}, sha256 of their digests `{whole}`",
    }
    if about:
        rows |= {
            "prepared by": f"{about['preparer']} ({about['kind']})",
            "from": ", ".join(about["files"]) or "no file",
        }
        rows |= {f"{split} records": f"{count:,}" for split, count in about["records"].items()}
        rows["records rejected"] = f"{about['rejected']:,}"
    else:
        rows["records"] = "not recorded by the version of sciforge that trained it"
    for name, other in (checkpoint.provenance.get("tasks") or {}).items():
        files = hashlib.sha256(json.dumps(other["data"], sort_keys=True).encode()).hexdigest()
        rows[f"store of task {name}"] = (
            f"{other['store']}, {other['records']:,} training records,"
            f" {len(other['data'])} files, sha256 of their digests `{files}`"
        )
    if checkpoint.run.subset:
        rows["labels learnt"] = (
            f"{checkpoint.run.subset.count}, chosen by seed {checkpoint.run.subset.seed}"
        )
    yield from _table(("what", "value"), rows.items())
    yield f"\n<!-- sources -->\n{origin}<!-- end of sources -->"


def _training(checkpoint: Checkpoint) -> Iterator[str]:
    run, schedule = checkpoint.run, checkpoint.run.schedule
    yield "\n## Training\n"
    line = (
        f"{checkpoint.step:,} of {schedule.steps:,} steps of {schedule.batch} examples, AdamW,"
        f" {schedule.kind} schedule"
    )
    yield (
        f"{line}, peak learning rate {schedule.lr:g}, weight decay {schedule.weight_decay:g}, clip"
        f" {schedule.clip}."
    )
    if schedule.ema_decay:
        yield (
            f"The weights are a moving average (decay {schedule.ema_decay:g}); the raw ones are in"
            " raw.safetensors."
        )
    if schedule.patience:
        yield (
            f"Early stopping after {schedule.patience} evaluations without improvement, every"
            f" {schedule.evaluate_every} steps."
        )
    for name, task in zip(checkpoint.tasks, run.tasks, strict=False):
        yield f"- task {name}: share {task.share:g} of the examples, weight {task.weight:g}"
    extra = {
        name: getattr(run, name, None)
        for name in ("finetuning", "regularization", "replay", "dp_sgd", "pruning")
    }
    for name, value in extra.items():
        if value is not None and value != Full():
            yield f"- {name}: {_inline(to_json(value))}"
    yield f"- seed {run.seed}; {_inline(to_json(run.hardware))}"


def _metrics(checkpoint: Checkpoint, reports: Path | None) -> Iterator[str]:
    yield "\n## Metrics"
    metrics = _scalars(checkpoint.metrics)
    if not metrics:
        yield "\nOn the validation split: not measured."
    else:
        yield from _table(
            ("validation split", "value"), ((k, f"{v:.6g}") for k, v in metrics.items())
        )
        yield (
            f"\nOne run, seed {checkpoint.run.seed}: no interval. `sciforge label-efficiency`"
            " repeats over seeds and gives one."
        )
    if checkpoint.run.schedule.patience:
        yield "Early stopping chose by these metrics, which flatters them."
    evaluations = _find(("evaluation",), checkpoint, reports)
    for path, body in evaluations:
        title = f"{body.get('split')} split of {body.get('data')}, {body.get('records')} records"
        yield from _table(
            (title, "value"),
            ((k, f"{v:.6g}") for k, v in _scalars(body.get("metrics") or {}).items()),
        )
        yield f"\n(from {path.name})"
    if not evaluations:
        yield "On a test split: not measured (`sciforge card CHECKPOINT --data STORE`)."


def _limits(checkpoint: Checkpoint) -> Iterator[str]:
    yield "\n## Limits\n"
    yield (
        "- The metrics hold for records like those of the store above; elsewhere nothing was"
        " measured."
    )
    if not checkpoint.provenance.get("data"):
        yield "- The data it was trained on are not recorded."
    if checkpoint.provenance.get("git_dirty"):
        yield "- The code had changes that no commit holds."
    if checkpoint.step < checkpoint.run.schedule.steps:
        yield f"- It stopped at step {checkpoint.step:,} of {checkpoint.run.schedule.steps:,}."
    yield (
        "- `sciforge check` tells which laws of its domain it keeps; `sciforge verify` whether it"
        " is what it says."
    )


def _privacy(checkpoint: Checkpoint, reports: Path | None) -> Iterator[str]:
    yield "\n## Privacy\n"
    spent = {k: v for k, v in checkpoint.metrics.items() if k in ("privacy", "epsilon", "delta")}
    if checkpoint.run.dp_sgd is None:
        yield "Trained without differential privacy."
    else:
        yield (
            "Trained with differential privacy; spent:"
            f" {_inline(spent or to_json(checkpoint.run.dp_sgd))}."
        )
    yield from _report("Privacy", checkpoint, reports, "Membership inference: not measured")


def _forgetting(checkpoint: Checkpoint, reports: Path | None) -> Iterator[str]:
    yield "\n## Forgetting\n"
    retained = checkpoint.metrics.get("retained")
    if retained:
        rows = (
            (k, f"{v:.6g}", f"{retained['after'].get(k, float('nan')):.6g}")
            for k, v in retained["before"].items()
        )
        yield (
            f"The parent's own task on {retained['records']} {retained['split']} records of the old"
            " data:"
        )
        yield from _table(("metric", "before", "after"), rows)
    elif not checkpoint.run.init:
        yield "Trained from random weights: there is nothing to forget."
    elif not _find(REPORTS["Forgetting"][0], checkpoint, reports):
        yield "Not measured (give the run `--retention OLD-STORE`, or `sciforge forgetting`)."
    yield from _report("Forgetting", checkpoint, reports)


def _find(
    names: Sequence[str], checkpoint: Checkpoint, reports: Path | None
) -> list[tuple[Path, dict[str, Any]]]:
    """Return the reports of these names in the checkpoint's folder, its run's, the folders
    there, and in `reports`.
    """
    run = checkpoint.path.parent
    places = [
        checkpoint.path,
        *([run, *sorted(run.glob("*/"))] if (run / "metrics.jsonl").exists() else []),
    ]
    places += [reports] if reports else []
    matches = {}
    for folder in places:
        for file in (folder / f"{name}.json" for name in names):
            if file.is_file() and file.resolve() not in matches:
                try:
                    body = read_json(file, CheckpointError)
                except CheckpointError:
                    continue  # not a report that sciforge wrote, or a damaged one
                weights = body.get("weights_sha256")
                if weights in (None, checkpoint.body["files"][WEIGHTS]):
                    matches[file.resolve()] = (file, body)
    return list(matches.values())


def _report(
    section: str, checkpoint: Checkpoint, reports: Path | None, missing: str = ""
) -> Iterator[str]:
    """Yield what the reports of a section say, or `missing` where there is none."""
    names, command = REPORTS[section]
    matches = _find(names, checkpoint, reports)
    for path, body in matches:
        yield f"\nFrom {path.name}:"
        if isinstance(body.get("summary"), str):
            yield body["summary"]
        rows = list(_flat({k: v for k, v in body.items() if k not in NOT_SHOWN}))[:MAX_SCALARS]
        yield from _table(("quantity", "value"), rows)
    if not matches and missing:
        yield f"{missing} (`{command}`)."


def _flat(body: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the numbers and short texts of nested mappings with dotted names; lists are left to the
    report itself.

    >>> list(_flat({"auc": 0.5, "tpr": {"0.01": 0.02}, "runs": [1, 2]}))
    [('auc', '0.5'), ('tpr.0.01', '0.02')]
    """
    for key, value in body.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, float | int | str) and len(str(value)) <= 80:
            yield f"{prefix}{key}", f"{value:.6g}" if isinstance(value, float) else str(value)


def _provenance(checkpoint: Checkpoint) -> Iterator[str]:
    about = checkpoint.provenance
    rows = {f"version of {name}": value for name, value in (about.get("versions") or {}).items()}
    dirty = " with uncommitted changes" if about.get("git_dirty") else ""
    rows |= {
        "commit": f"{about.get('git_commit') or 'unknown'}{dirty}",
        "platform": about.get("platform", "unknown"),
    }
    rows |= {
        "device": f"{about.get('device', 'unknown')}, {about.get('world_size', 1)} process(es)"
    }
    rows |= {"seed": checkpoint.run.seed, "step": checkpoint.step}
    if about.get("parent"):
        rows["sha256 of the parent's checkpoint.json"] = f"`{about['parent']}`"
    yield "\n## Provenance"
    yield from _table(("what", "value"), rows.items())
    yield (
        "\nThe whole run is in checkpoint.json; `sciforge train --config checkpoint.json` takes it."
    )
