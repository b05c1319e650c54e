"""Are probabilities frequencies? Default heads of 128 labels in all, before and after calibration.

    python benchmarks/calibration.py --out runs/calibration [--seeds 5] [--only promoters fashion
    hotels austen]

`promoters`: yeast, test chromosomes IV, XIII, XV. `fashion`: the bundled sample of Fashion-MNIST,
600 test pictures (--fashion FOLDER with the four IDX files reads all 10,000). `hotels`: fake or
truthful reviews, 400 for the test. `austen`: speech or narration, 600 for the test. Each model is
the domain's bundled checkpoint, fitted by its recommended recipe with 128 balanced training labels;
calibration sees the same 128 and no other. `untrained` is the same network of random weights, under
the same recipe. `other source` leaves a source out of training and tests on it alone: the reviews
of one polarity, or each of the novels.

Printed, as the mean over seeds: expected calibration error on the test split (bins of equal mass,
their number the cube root of the number of records, 15 at most), what perfect probabilities would
show (`chance`), accuracy and MCC, which a temperature leaves alone.
"""

import argparse
import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from pretrain_vit_mini import fashion

import sciforge as sf
from sciforge import catalog
from sciforge.core.data.store import Store
from sciforge.core.learners import calibration
from sciforge.core.learners.metrics import classification_metrics
from sciforge.core.training.calibrate import calibrate
from sciforge.core.training.loop import train
from sciforge.core.training.model import Model
from sciforge.core.training.run import Run, Subset
from sciforge.experiments.statistics import mean_interval

SHARED = Path(__file__).resolve().parents[2] / "shared/data"
LABELS, GOAL = 128, 0.05
INIT = {
    "promoters": "dna-bert-mini",
    "fashion": "vit-mini",
    "hotels": "modern-mini-english",
    "austen": "modern-mini-english",
}
TABLES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "hotels": (lambda data: data / "text/deceptive_hotel_reviews.tsv.gz", "\t"),
    "austen": (lambda data: catalog.find("austen-speech"), ","),
}
COLUMNS = ("ece_before", "ece_after", "chance", "accuracy_before", "accuracy_after", "mcc")


def promoters(data: Path) -> sf.genomes.YeastPromoters:
    """Return the preparer of yeast promoters."""
    folder = data / "genomes/yeast"
    return sf.genomes.YeastPromoters(
        genome=folder / "Saccharomyces_cerevisiae.R64-1-1.dna.toplevel.fa.gz",
        transcripts=folder / "Scer_polIItranscripts-adjustedTSS.bed",
    )


def source_of(task: str, row: dict[str, str]) -> str:
    """Return the source of a document: a review's polarity, a paragraph's novel."""
    return row["polarity"] if task == "hotels" else row["chapter"].partition("-")[0]


def documents(task: str, data: Path, out: Path, left_out: str = "") -> Store:
    """Return the store of a table of documents; with a source left out, it alone is tested and the
    others alone are learnt.
    """
    if out.exists():
        return Store.open(out)
    file, delimiter = TABLES[task][0](data), TABLES[task][1]
    rows = list(csv.DictReader(io.StringIO(gzip.open(file, "rt").read()), delimiter=delimiter))
    kept = [
        row
        for row in rows
        if not left_out or (source_of(task, row) == left_out) == (row["split"] == "test")
    ]
    table = out.parent / f"{out.name}.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    with open(table, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(kept)
    group = "chapter" if task == "austen" else ""
    preparer = sf.text.Documents(
        files=(table,), label_column="label", split_column="split", group_column=group
    )
    return sf.prepare(preparer, out).store


def stores(task: str, options: argparse.Namespace) -> Iterator[tuple[str, Store]]:
    """Yield the test and the store of each: `test`, then each source left out."""
    place = options.out / "stores" / task
    if task == "promoters":
        yield (
            "test",
            Store.open(place)
            if place.exists()
            else sf.prepare(promoters(options.data), place).store,
        )
    elif task == "fashion" and options.fashion:
        yield "test", fashion(options.fashion, place)
    elif task == "fashion":
        sample = sf.images.Images(files=(catalog.find("fashion-sample"),))
        yield "test", Store.open(place) if place.exists() else sf.prepare(sample, place).store
    else:
        yield "test", documents(task, options.data, place)
        for source in ("negative", "positive") if task == "hotels" else "012345":
            yield (
                f"other source {source}",
                documents(task, options.data, place.with_name(f"{task}-{source}"), source),
            )


def measured(model: Model, store: Store, line: str) -> dict[str, float | str]:
    """Return the columns of the table for one fitted model."""
    objective = model.objective
    records = objective.examples(store, "test")
    label_N = objective.class_numbers(records)
    after_NC = model.outputs(records)["probability"]
    correction = objective.calibration
    # softmax(log(p) T) takes a temperature back
    log_NC = np.log(after_NC.astype(np.float64).clip(1e-30)) * correction.temperature
    before_NC = np.exp(log_NC - log_NC.max(1, keepdims=True))
    before_NC /= before_NC.sum(1, keepdims=True)
    row: dict[str, float | str] = {"temperature": correction.temperature, "line": line}
    for name, p_NC in (("before", before_NC), ("after", after_NC)):
        confidence = calibration.top_label(p_NC, label_N)
        row[f"ece_{name}"] = calibration.expected_calibration_error(*confidence)
        row[f"accuracy_{name}"] = float(confidence[1].mean())
    metrics = classification_metrics(label_N, after_NC)
    return row | {"mcc": metrics["mcc"], "chance": calibration.chance_error(after_NC.max(1))}


def fit(
    task: str, net: str, store: Store, seed: int, options: argparse.Namespace
) -> tuple[Model, str]:
    """Return the pretrained model fitted by its recipe, or the same network of random weights."""
    start = sf.load(INIT[task], device="cpu")
    recipe = next(iter(start.inputs.recipes.values()))  # the recommended one
    run = Run(
        data=store.path,
        out=options.out / "run" / f"{task}-{net}-{store.path.name}-{seed}",
        subset=Subset(LABELS, seed),
        seed=seed,
        **recipe.settings(store, start.checkpoint, LABELS),
        **(
            {"init": start.checkpoint.path}
            if net == "pretrained"
            else {"model": start.checkpoint.model_config, "codec": start.codec}
        ),
    )
    checkpoint, lines = calibrate(train(run), store, "auto")  # as Model.fit does
    return Model.load(checkpoint.path, "cpu"), lines[0]


def report(rows: list[dict]) -> None:
    """Print one line a task, network and test, the mean over seeds or sources."""
    print(
        "| task | network | tested on | fits | ECE before | ECE after | chance | accuracy | MCC |"
    )
    print("|---" * 9 + "|")
    keys = [(r["task"], r["net"], r["test"].partition(" source")[0]) for r in rows]
    for key in dict.fromkeys(keys):
        part = [row for row, other in zip(rows, keys, strict=True) if other == key]
        means = {name: float(np.mean([row[name] for row in part])) for name in COLUMNS}
        errors = [mean_interval([r[f"ece_{at}"] for r in part]) for at in ("before", "after")]
        cells = [interval.text(3) for interval in errors] + [f"{means['chance']:.3f}"]
        moved = max(abs(row["accuracy_after"] - row["accuracy_before"]) for row in part)
        cells += [f"{means['accuracy_after']:.3f} (moved by {moved:.3f})", f"{means['mcc']:.3f}"]
        print(f"| {' | '.join((*key, str(len(part)), *cells))} |")
    print(f"\ngoal: ECE after at most {GOAL} on test")


def main() -> None:
    """Fit, measure, and print the table; rows that are there already are not made again."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--fashion", type=Path, help="folder of the IDX files of Fashion-MNIST")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=INIT, nargs="+", default=list(INIT))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "rows.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {(r["task"], r["net"], r["test"], r["seed"]) for r in rows}
    for task in options.only:
        for test, store in stores(task, options):
            # a source left out has one seed, and no control
            seeds = options.seeds if test == "test" else 1
            for net in ("pretrained", "untrained") if test == "test" else ("pretrained",):
                for seed in range(seeds):
                    if (task, net, test, seed) in done:
                        continue
                    model, line = fit(task, net, store, seed, options)
                    row = {"task": task, "net": net, "test": test, "seed": seed}
                    row |= measured(model, store, line)
                    rows.append(row)
                    with open(file, "a", encoding="utf-8") as stream:
                        stream.write(json.dumps(row) + "\n")
                    print(row, flush=True)
    report(rows)


if __name__ == "__main__":
    main()
