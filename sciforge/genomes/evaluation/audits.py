"""Audits that come before belief: masks that leak, labels that a shortcut gives away, splits
that share sequence.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sciforge.core.data.sampling import EVALUATE, generator
from sciforge.core.data.store import SPLITS, Store
from sciforge.core.files.output_files import write_whole
from sciforge.core.files.settings import Settings
from sciforge.core.files.tables import AuditReport, Section, Table
from sciforge.core.learners.metrics import classification_metrics
from sciforge.core.training.evaluation import evaluate
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError
from sciforge.genomes.data.codec import KmerCodec
from sciforge.genomes.data.genome_windows import GenomeWindows
from sciforge.genomes.data.homology import WORD, canonical_words, duplicates, overlaps, share_within
from sciforge.genomes.evaluation.markov import MAX_ORDER, Markov
from sciforge.genomes.inference.requirements import need_masked
from sciforge.genomes.objectives.masking import SCORED_MASKED, covered, draw_masks

NATS_OF_BIT = float(np.log(2))
STRONG_SHORTCUT = 0.7  # AUROC above which a task can be won without looking at the order of bases
STRONG = {
    "pairs of bases": 0.8
}  # pairs carry biology (CpG, poly-dA:dT), so that more is needed to call them a shortcut


@dataclass(frozen=True, kw_only=True)
class AuditMasks(Settings):
    """Can hidden bases be read off visible tokens, and does a checkpoint know more than counting
    does?

    Args:
        data: a genome store.
        checkpoint: a pretraining checkpoint to compare with Markov models of the same genome; None
            leaves that out.
        k: bases of a token; None for that of the checkpoint, or 6.
        stride: bases from one token to the next; None for that of the checkpoint, or 1.
        windows: how many windows to look at.
        highest_order: Markov models of order 0 to this, one- and two-sided.
    """

    data: Path
    checkpoint: Path | None = None
    k: int | None = None
    stride: int | None = None
    windows: int = 1000
    highest_order: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, math.inf, "windows")
        self.require(0, MAX_ORDER[False], "highest_order")
        if self.checkpoint is not None and (self.k, self.stride) != (None, None):
            raise ConfigError(
                "masks.k and masks.stride are those of the checkpoint; leave them out"
            )

    def run(self) -> AuditReport:
        """Return the share of readable tokens (ours must be 0) and bits per hidden base."""
        store = Store.open(self.data)
        model = None if self.checkpoint is None else Model.load(self.checkpoint)
        codec = KmerCodec(self.k or 6, self.stride or 1) if model is None else model.codec
        records = GenomeWindows(store, "train", 512)
        if not len(records):
            raise ConfigError(
                f"{store.path} has no training window of 512 bases; give longer contigs"
            )
        chosen = [
            records[i] for i in generator(0, EVALUATE).permutation(len(records))[: self.windows]
        ]
        bases = [np.asarray(r["bases"])[r["inside"][0] : r["inside"][0] + 512] for r in chosen]
        ours = readable_share(bases, codec)
        dnabert = dnabert_readable_share(bases, KmerCodec(codec.k, 1))
        rows = [(f"spans of bases, k {codec.k}, stride {codec.stride} (ours)", f"{ours:.1%}")]
        rows.append((f"DNABERT's scheme, k {codec.k}, stride 1", f"{dnabert:.1%}"))
        tables = [
            Table(("masking", "scored [MASK] tokens readable from visible ones"), tuple(rows))
        ]
        metrics = {"readable": ours, "readable_dnabert": dnabert}
        warnings = () if ours == 0 else ("hidden bases can be read off visible tokens",)
        if model is not None:
            table, bits = self._bits(store, model)
            tables.append(table)
            metrics |= bits
            best = min(value for name, value in bits.items() if name.startswith("one_sided"))
            if bits["checkpoint"] >= best:
                warnings = (
                    *warnings,
                    "the checkpoint knows no more of a hidden base than a Markov model does",
                )
        return AuditReport(Section("Mask audit", (), tuple(tables)), metrics, warnings)

    def _bits(self, store: Store, model: Model) -> tuple[Table, dict[str, float]]:
        need_masked(model)
        plain = {
            "random_share": 0.0,
            "keep_share": 0.0,
            "unmasked_share": 0.0,
            "frame_weight": 0.0,
            "pair_weight": 0.0,
        }
        objective = replace(model.objective, **plain)
        records = objective.examples(store, "validation")
        if not len(records):
            raise ConfigError(
                f"{store.path} has no validation split; prepare it with --validation or"
                " --validation-every"
            )
        sample = [
            records[i] for i in generator(0, EVALUATE).permutation(len(records))[: self.windows]
        ]
        metrics = evaluate(model.network, objective, model.codec, sample, model.engine)
        bits = {"checkpoint": metrics["nats_per_base"] / NATS_OF_BIT}
        rows = [("this checkpoint, spans of bases hidden", f"{bits['checkpoint']:.4f}")]
        for two_sided in (False, True):
            for order in range(
                self.highest_order + 1 if not two_sided else self.highest_order // 2 + 1
            ):
                markov = Markov.fit(_stretches(store, "train"), order, two_sided)
                side = "two_sided" if two_sided else "one_sided"
                bits[f"{side}_{order}"] = markov.bits(_stretches(store, "validation"))
                name = f"Markov order {order}" + (
                    ", both sides of a single base" if two_sided else ""
                )
                rows.append((name, f"{bits[f'{side}_{order}']:.4f}"))
        note = (
            "Validation split, both strands. Two-sided models see both neighbours of one base; the"
            " checkpoint hides spans."
        )
        return Table(("model", "bits per hidden base"), tuple(rows), note), bits


def _stretches(store: Store, split: str) -> Iterator[np.ndarray]:
    for contig, start, stop, name in store.meta["spans"]:
        if name == split:
            for at in range(start, stop, 1 << 20):
                yield np.asarray(store[contig]["bases"][at : min(at + (1 << 20), stop)])


def readable_share(sequences: Sequence[np.ndarray], codec: KmerCodec) -> float:
    """Return the share of masked tokens all of whose hidden bases lie under visible tokens; 0
    unless the masking leaks.
    """
    readable = masked = 0
    for number, bases in enumerate(sequences):
        masks = draw_masks(
            bases, codec, generator(0, EVALUATE, 1, number), rate=0.15, shortest=3, longest=12
        )
        visible_L = covered(~masks.masked_T, len(bases), codec)
        hidden = masks.scored_L == SCORED_MASKED
        for token in np.flatnonzero(masks.masked_T):
            here = slice(token * codec.stride, token * codec.stride + codec.k)
            masked += 1
            readable += bool(hidden[here].any() and visible_L[here][hidden[here]].all())
    return readable / masked if masked else 0.0


def dnabert_readable_share(sequences: Sequence[np.ndarray], codec: KmerCodec) -> float:
    """Return the same share under DNABERT's masking (run_pretrain.py): runs of k tokens, then
    80/10/10 token by token.
    """
    readable = scored = 0
    for number, bases in enumerate(sequences):
        rng = generator(0, EVALUATE, 2, number)
        num = codec.num_tokens(len(bases))
        centres = np.flatnonzero(rng.random(num) < 0.15 / codec.k)
        chosen = np.zeros(num, bool)
        for centre in centres:
            left = centre - (codec.k - 1) // 2
            chosen[max(0, left) : left + codec.k] = True
        draw = rng.random(num)
        # 80 % masked, 10 % random, 10 % kept: the kept ones are true
        visible = ~chosen | (draw >= 0.9)
        visible_L = covered(visible, len(bases), codec)
        for token in np.flatnonzero(chosen):
            scored += 1
            readable += bool(visible_L[token : token + codec.k].all())
    return readable / scored if scored else 0.0


@dataclass(frozen=True, kw_only=True)
class AuditShortcuts(Settings):
    """How far do GC content, length, unknown bases or pairs of bases alone solve a labelled task?

    Args:
        data: a store of labelled windows.
        seed: of the logistic regressions.
    """

    data: Path
    seed: int = 0

    def run(self) -> AuditReport:
        """Return test metrics of each shortcut and a warning where one is strong."""
        store = Store.open(self.data)
        parts = {split: store.split(split) for split in ("train", "test")}
        if not all(len(rows) for rows in parts.values()):
            raise ConfigError(
                f"{store.path} needs training and test records; prepare it with a test split"
            )
        sequences = {
            split: [np.asarray(row["bases"]) for row in rows] for split, rows in parts.items()
        }
        if not store.meta.get("classes"):
            raise ConfigError(f"{store.path} has no classes; shortcuts are judged for classes only")
        classes = sorted(set(parts["train"].column("label")))
        unseen = set(parts["test"].column("label")) - set(classes)
        if len(classes) < 2 or unseen:
            what = f"class {min(unseen)!r} has" if unseen else "all classes but one have"
            raise ConfigError(f"{store.path}: {what} no training record; split it anew")
        labels = {
            split: np.array([classes.index(name) for name in rows.column("label")])
            for split, rows in parts.items()
        }
        rows, metrics, warnings = [], {}, []
        for name, describe in SHORTCUTS.items():
            scores = _judge(describe, sequences, labels, self.seed)
            metrics |= {f"{name} {key}": value for key, value in scores.items()}
            rows.append(
                (name, *(f"{scores[key]:.3f}" if key in scores else "" for key in ("mcc", "auroc")))
            )
            if scores.get("auroc", 0.5 + abs(scores["mcc"]) / 2) > STRONG.get(
                name, STRONG_SHORTCUT
            ):
                warnings.append(
                    f"{name} alone separates the classes; match the negatives, or report this"
                    " beside any score"
                )
        note = (
            "Logistic regression on the training split, judged on the test split. Chance is MCC 0,"
            " AUROC .5."
        )
        return AuditReport(
            Section("Shortcut audit", (), (Table(("only", "MCC", "AUROC"), tuple(rows), note),)),
            metrics,
            tuple(warnings),
        )


def _gc(bases: np.ndarray) -> list[float]:
    plain = bases & 7
    return [float(np.isin(plain, (1, 2)).sum() / max((plain < 4).sum(), 1))]


def _pairs(bases: np.ndarray) -> np.ndarray:
    plain = (bases & 7).astype(np.int64)
    known = (plain[:-1] < 4) & (plain[1:] < 4)
    return np.bincount((plain[:-1] * 4 + plain[1:])[known], minlength=16) / max(known.sum(), 1)


SHORTCUTS = {
    "GC content": _gc,
    "length": lambda bases: [float(len(bases))],
    "unknown bases": lambda bases: [float(((bases & 7) > 3).mean())],
    "soft-masked bases": lambda bases: [float((bases & 8 > 0).mean())],
    "pairs of bases": _pairs,
}


def _judge(
    describe: Callable[[np.ndarray], Any],
    sequences: Mapping[str, Sequence[np.ndarray]],
    labels: Mapping[str, np.ndarray],
    seed: int,
) -> dict[str, float]:
    from sklearn.linear_model import LogisticRegression

    features = {
        split: np.array([describe(bases) for bases in rows]) for split, rows in sequences.items()
    }
    centre, std = features["train"].mean(0), features["train"].std(0)
    scaled = {
        split: (rows - centre) / np.where(std > 0, std, 1) for split, rows in features.items()
    }
    model = LogisticRegression(max_iter=1000, random_state=seed).fit(
        scaled["train"], labels["train"]
    )
    return classification_metrics(labels["test"], model.predict_proba(scaled["test"]))


@dataclass(frozen=True, kw_only=True)
class AuditSplits(Settings):
    """Do training and test windows, or the pretraining corpus and test windows, share sequence?

    Args:
        data: a store of labelled windows.
        corpus: a genome store that was pretrained on; None leaves that out.
        threshold: share of a test window's 16-mers found elsewhere from which it counts as
            homologous.
        keep_out: write the names of homologous test windows here, one a line, to score without
            them.
    """

    data: Path
    corpus: Path | None = None
    threshold: float = 0.5
    keep_out: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0, 1, "threshold")

    def run(self) -> AuditReport:
        """Return duplicates, overlaps and homology between the splits, and with the corpus."""
        store = Store.open(self.data)
        split = np.asarray(store.column("split"))
        sequences = [np.asarray(store[i]["bases"]) for i in range(len(store))]
        test, train = (
            np.flatnonzero(split == SPLITS.index("test")),
            np.flatnonzero(split != SPLITS.index("test")),
        )
        if not len(test):
            raise ConfigError(f"{store.path} has no test records; prepare it with a test split")
        if not len(train):
            raise ConfigError(
                f"{store.path} has test records only; there is nothing to compare with"
            )
        metrics = {"same sequence, either strand": duplicates(sequences, train, test)}
        if "contig" in store[0] and "start" in store[0]:
            metrics["overlap in place, either strand"] = overlaps(store, sequences, train, test)
        shares = {
            "training": share_within(
                [sequences[i] for i in test], canonical_words([sequences[i] for i in train])
            )
        }
        if self.corpus is not None:
            corpus = Store.open(self.corpus)
            words = np.unique(
                np.concatenate([canonical_words([piece]) for piece in _stretches(corpus, "train")])
            )
            shares["pretraining corpus"] = share_within([sequences[i] for i in test], words)
        rows = [(name, str(count), f"{count / len(test):.2%}") for name, count in metrics.items()]
        flagged = np.zeros(len(test), bool)
        for name, share in shares.items():
            near = share >= self.threshold
            flagged |= near
            metrics[f"homologous to {name}"] = int(near.sum())
            rows.append(
                (
                    f"{self.threshold:.0%} of 16-mers also in the {name}",
                    str(near.sum()),
                    f"{near.mean():.2%}",
                )
            )
        if self.keep_out is not None:
            _write_names(self.keep_out, store, test[flagged])
        warnings = [f"{count} test windows: {name}" for name, count in metrics.items() if count]
        if short := sum(len(sequences[i]) < WORD for i in test):
            warnings.append(
                f"{short} test windows are shorter than {WORD} bases; their homology is not judged"
            )
        table = Table(
            ("test windows with", "count", "share"),
            tuple(rows),
            f"{len(test)} test windows, {len(train)} others.",
        )
        return AuditReport(
            Section("Split audit", (), (table,)),
            {k: float(v) for k, v in metrics.items()},
            tuple(warnings),
        )


def _write_names(path: Path, store: Store, places: np.ndarray) -> None:
    """Write the names of records, or their places where they have none, one a line."""
    names = store.column("name") if "name" in store[0] else range(len(store))
    lines = "".join(f"{names[i]}\n" for i in places)
    write_whole(path, lambda work: work.write_text(lines, encoding="utf-8"))
