"""What a command prints: tables, metrics, checkpoints, the path of what was written; under
torchrun one process prints.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def print_text(text: str) -> int:
    """Print a text and return the exit code 0."""
    if os.environ.get("RANK", "0") == "0":
        print(text)
    return 0


def print_rows(rows: Mapping[str, Any]) -> int:
    """Print names and values in two columns."""
    width = max(map(len, rows), default=0)
    lines = [
        f"{k:<{width}}  {v:.6g}" if isinstance(v, float) else f"{k:<{width}}  {v}"
        for k, v in rows.items()
    ]
    return print_text("\n".join(lines))


def print_result(result: Any, out: Path | None = None, as_json: bool = False) -> int:
    """Print a result, or save it and print where.

    Args:
        result: what a verb returned.
        out: the file to write; None prints the result.
        as_json: print JSON.
    """
    if out is not None:
        return print_text(str(result.save(out)))
    if as_json:
        return print_text(json.dumps(_json_of(result), indent=1))
    if isinstance(result, Path):
        return print_text(str(result))
    if isinstance(result, dict):
        return print_rows(result)
    if hasattr(result, "text"):
        return print_text(result.text())
    return print_text(result.table().text() if hasattr(result, "table") else repr(result))


def _json_of(result: Any) -> Any:
    if isinstance(result, dict):
        return dict(result)
    if hasattr(result, "to_json"):
        return result.to_json()
    return json.loads(result.to_pandas().to_json(orient="records"))


def print_dataset(dataset: Any, quiet: bool = False) -> int:
    """Print where a dataset is, what it holds and, unless `quiet`, its summary."""
    from sciforge.core.data.summary import split_counts

    store = dataset.store
    rows = {"store": store.path, "domain": store.domain, "kind": store.kind, "records": len(store)}
    rows |= split_counts(store)
    if store.index["rejected"]:
        rows["rejected"] = f"{store.index['rejected']} (see {store.path / 'rejected.jsonl'})"
    print_rows(rows)
    if quiet:
        return 0
    notes = [note for note in dataset.describe()[1:] if "rejected.jsonl" not in note]
    return print_text("\n".join(notes)) if notes else 0


def print_checkpoint(checkpoint: Any) -> int:
    """Print where a checkpoint is, its step and its metrics."""
    recorded = {**checkpoint.metrics, **checkpoint.metrics.get("privacy", {})}
    metrics = {k: v for k, v in recorded.items() if isinstance(v, float | int)}
    print_rows({"checkpoint": checkpoint.path, "step": checkpoint.step, **metrics})
    if retained := checkpoint.metrics.get("retained"):
        from sciforge.core.methods.retention import forgetting_table

        print_text("\n" + forgetting_table(retained).text())
    return 0


def print_audit(report: Any, as_json: bool) -> int:
    """Print the tables and warnings of an audit."""
    if as_json:
        return print_text(
            json.dumps({"metrics": report.metrics, "warnings": report.warnings}, indent=1)
        )
    return print_text(
        "\n".join([report.section.text(), *(f"warning: {line}" for line in report.warnings)])
    )
