"""`sciforge prepare`: byte-identical for any number of workers, honest splits, bad records
skipped and counted or fatal.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from sciforge.core.data.store import SPLITS, Store, prepare
from sciforge.errors import ConfigError, DataError
from sciforge.genomes.data.annotated_windows import EcoliCoding, Intervals, Tracks, YeastPromoters
from sciforge.genomes.data.genome import Genome
from sciforge.genomes.data.homology import canonical_words, share_within
from sciforge.genomes.data.labelled_sequences import Sequences
from sciforge.genomes.data.sequences import as_letters, encode, reverse_complement
from sciforge.genomes.evaluation.audits import AuditMasks, AuditShortcuts, AuditSplits

SHARED = (
    Path(os.environ.get("SCIFORGE_SHARED", Path(__file__).parents[4] / "shared"))
    / "data"
    / "genomes"
)
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"the shared data are not at {SHARED}"
)


def letters(rng, length):
    return "".join(
        rng.choice(
            list("ACGTacgtN"), length, p=[0.22, 0.22, 0.22, 0.22, 0.03, 0.03, 0.03, 0.02, 0.01]
        )
    )


@pytest.fixture
def fastas(tmp_path):
    rng = np.random.default_rng(0)
    files = []
    for number in range(3):
        path = tmp_path / f"g{number}.fa"
        path.write_text("".join(f">c{number}{x}\n{letters(rng, 700)}\n" for x in "ab"))
        files.append(path)
    return tuple(files)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def test_stores_are_identical_for_any_number_of_workers(fastas, tmp_path):
    one = prepare(Genome(files=fastas), tmp_path / "one")
    two = prepare(Genome(files=fastas), tmp_path / "two", workers=2)
    assert contents(one.path) == contents(two.path)


def test_a_store_gives_back_every_base(fastas, tmp_path):
    store = prepare(Genome(files=fastas), tmp_path / "store")
    text = "".join(path.read_text() for path in fastas).split()
    for i in range(len(store)):
        record = store[i]
        assert as_letters(record["bases"]) == as_letters(
            encode(text[text.index(f">{record['name']}") + 1].encode())
        )


def test_the_same_contig_in_two_files_is_refused(fastas, tmp_path):
    with pytest.raises(DataError, match="'c0a' comes from two files"):
        prepare(Genome(files=(*fastas, fastas[0])), tmp_path / "store")
    assert not (tmp_path / "store").exists() and not list(tmp_path.glob(".writing-*"))


def test_unknown_hold_out_is_named(fastas, tmp_path):
    with pytest.raises(ConfigError, match="no contig 'c0c' to hold out; did you mean"):
        prepare(Genome(files=fastas, test=("c0c",)), tmp_path / "store")


def test_bad_records_stop_or_are_skipped_and_counted(fastas, tmp_path):
    fastas[1].write_text(">ok\nACGTACGT\n>bad\nACGJ\n>fine\nACGT\n")
    with pytest.raises(DataError, match="g1.fa:4: letter 'J'"):
        prepare(Genome(files=fastas), tmp_path / "stop")
    assert not (tmp_path / "stop").exists()
    store = prepare(Genome(files=fastas), tmp_path / "skip", on_error="skip")
    assert (
        store.index["rejected"] == 1
        and "bad" not in store.column("name")
        and "fine" in store.column("name")
    )
    reject = json.loads((tmp_path / "skip" / "rejected.jsonl").read_text())
    assert (reject["name"], reject["line"]) == ("bad", 4) and "'J'" in reject["reason"]


def test_equal_sequences_share_a_split_and_classes_keep_their_proportions(tmp_path):
    rng = np.random.default_rng(0)
    rows = [(letters(rng, 30).upper(), "ab"[n % 2]) for n in range(200)]
    rows += rows[:50]
    (tmp_path / "t.tsv").write_text("label\tsequence\n" + "".join(f"{y}\t{s}\n" for s, y in rows))
    store = prepare(Sequences(files=(tmp_path / "t.tsv",)), tmp_path / "store")
    seen = {}
    for i in range(len(store)):
        record = store[i]
        assert seen.setdefault(record["bases"].tobytes(), record["split"]) == record["split"]
    for split in SPLITS:
        labels = store.split(split).column("label")
        assert len(labels) and abs(labels.count("a") / len(labels) - 0.5) < 0.15


def test_numbers_are_checked(tmp_path):
    (tmp_path / "t.csv").write_text("sequence,label\nACGT,1.5\nACGA,high\n")
    with pytest.raises(DataError, match="'high' is not a number"):
        prepare(Sequences(files=(tmp_path / "t.csv",), numeric=True), tmp_path / "store")


def interval_task(tmp_path, chrom="chr"):
    rng = np.random.default_rng(0)
    records = {f"{n}": "".join(rng.choice(list("ACGT"), 20_000)) for n in ("1", "2", "3", "4")}
    (tmp_path / "g.fa").write_text("".join(f">{n}\n{b}\n" for n, b in records.items()))
    rows = [
        f"{chrom}{n}\t{at}\t{at + 50}\tp\t0\t{'+-'[at // 1000 % 2]}"
        for n in records
        for at in range(900, 19_000, 1000)
    ]
    (tmp_path / "p.bed").write_text("\n".join(rows) + "\n")
    return records


@pytest.mark.parametrize("anchor", ["middle", "start", "end"])
def test_windows_around_your_own_intervals(tmp_path, anchor):
    records = interval_task(tmp_path)
    reach = {"length": 60} if anchor == "middle" else {"upstream": 40, "downstream": 20}
    options = {"distance": 100, "anchor": anchor, **reach}
    preparer = Intervals(
        genome=tmp_path / "g.fa",
        intervals=tmp_path / "p.bed",
        test=("3",),
        validation=("4",),
        **options,
    )
    store = prepare(preparer, tmp_path / "store")
    assert set(store.split("test").column("contig")) == {"3"} and set(
        store.split("validation").column("contig")
    ) == {"4"}
    for i in range(len(store)):
        record = store[i]
        start, size = int(record["start"]), len(record["bases"])
        forward = encode(records[record["contig"]][start : start + size].encode())
        expected = forward if record["strand"] > 0 else reverse_complement(forward)
        assert np.array_equal(record["bases"], expected)
        # distance to the middle of the nearest interval
        nearest = abs((start + size / 2 - 925 + 500) % 1000 - 500)
        assert record["label"] == "background" or nearest < 80
    labels = store.column("label")
    assert labels.count("positive") == labels.count("background") > 40


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"anchor": "middle", "upstream": 40}, "upstream"),
        ({"anchor": "end", "length": 60}, "length"),
        ({"test": ("3",), "block_bp": 10}, "block_bp"),
    ],
)
def test_options_that_would_not_be_read_are_refused(options, name):
    with pytest.raises(ConfigError, match=f"{name} is not used"):
        Intervals(genome=Path("g.fa"), intervals=Path("p.bed"), **options)


def test_windows_left_out_are_counted_in_the_notes(tmp_path):
    interval_task(tmp_path)
    rows = (tmp_path / "p.bed").read_text()
    blocks = "chr1\t9000\t9050\tb\t0\t+\t9000\t9050\t0\t2\t10,10\t0,40\n"
    files = {"genome": tmp_path / "g.fa", "intervals": tmp_path / "p.bed"}
    (tmp_path / "p.bed").write_text(rows + "chr1\t1\t4\n" + blocks)
    notes = prepare(Intervals(**files, length=60), tmp_path / "store").meta["notes"]
    assert "p.bed: 1 intervals have several blocks; each is read as one stretch" in notes
    assert "1 windows left out: they reach past the end of a contig" in notes


def test_a_genome_says_what_it_excludes_and_does_not_know(fastas, tmp_path):
    store = prepare(Genome(files=fastas, exclude=("c0a",)), tmp_path / "one")
    assert "contig 'c0a' excluded, as asked" in store.meta["notes"]
    unknown = sum(int((as_array(store, i) == 4).sum()) for i in range(len(store)))
    assert (
        f"{unknown} bases of 5 contigs are unknown (N and other ambiguity codes)"
        in store.meta["notes"]
    )
    assert any(note.startswith("no validation split") for note in store.meta["notes"])
    with pytest.raises(ConfigError, match="no contig 'c0x' to exclude"):
        prepare(Genome(files=fastas, exclude=("c0x",)), tmp_path / "two")
    with pytest.raises(ConfigError, match="both test and validation"):
        prepare(Genome(files=fastas, test=("c0a",), validation=("c0a",)), tmp_path / "three")


def as_array(store, number):
    return np.asarray(store[number]["bases"]) & 7


def test_tracks_count_what_fills_no_window(tmp_path):
    (tmp_path / "g.fa").write_text(">a\n" + "ACGT" * 20 + "N" * 20 + "AC" + "\n")
    (tmp_path / "a.gff").write_text("##gff-version 3\na\tm\tCDS\t2\t10\t.\t+\t0\tID=x\n")
    files = {"genome": tmp_path / "g.fa", "annotation": tmp_path / "a.gff"}
    store = prepare(Tracks(**files, length=20), tmp_path / "store")
    assert len(store) == 4 and store.meta["notes"] == [
        "1 windows left out: all their bases are unknown (N)",
        "2 bases at the ends of contigs fill no whole window",
    ]


def test_unknown_kind_of_feature_is_named(tmp_path):
    interval_task(tmp_path)
    preparer = Intervals(genome=tmp_path / "g.fa", intervals=tmp_path / "p.bed", kinds=("CDS",))
    with pytest.raises(ConfigError, match="no feature of kind 'CDS'"):
        prepare(preparer, tmp_path / "store")


@needs_shared
def test_yeast_promoters_have_the_published_counts_and_no_gc_shortcut(tmp_path):
    yeast = SHARED / "yeast"
    preparer = YeastPromoters(
        genome=yeast / "Saccharomyces_cerevisiae.R64-1-1.dna.toplevel.fa.gz",
        transcripts=yeast / "Scer_polIItranscripts-adjustedTSS.bed",
    )
    store = prepare(preparer, tmp_path / "store")
    assert [len(store.split(split)) for split in SPLITS] == [8414, 588, 3790]
    found = AuditShortcuts(data=store.path).run()
    assert found.metrics["GC content auroc"] == pytest.approx(0.5, abs=0.03) and not found.warnings


@needs_shared
def test_the_older_assembly_is_refused_with_both_names(tmp_path):
    ecoli = SHARED / "ecoli"
    preparer = EcoliCoding(
        genome=ecoli / "MG1655-K12.fasta.gz",
        annotation=ecoli / "GCF_000005845.2_ASM584v2_genomic.gff.gz",
    )
    with pytest.raises(DataError, match=r"4,641,652 bp.*4,639,675 bp"):
        prepare(preparer, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_gc_shortcut_is_called_one(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for n in range(300):
        p = [0.3, 0.2, 0.2, 0.3] if n % 2 else [0.2, 0.3, 0.3, 0.2]
        rows.append(f"{'yes' if n % 2 else 'no'}\t{''.join(rng.choice(list('ACGT'), 80, p=p))}")
    (tmp_path / "t.tsv").write_text("label\tsequence\n" + "\n".join(rows) + "\n")
    store = prepare(Sequences(files=(tmp_path / "t.tsv",)), tmp_path / "store")
    found = AuditShortcuts(data=store.path).run()
    assert found.metrics["GC content auroc"] > 0.9 and any(
        "GC content" in warning for warning in found.warnings
    )


def test_shared_sequence_between_splits_is_found_on_either_strand(tmp_path):
    rng = np.random.default_rng(0)
    sequences = ["".join(rng.choice(list("ACGT"), 80)) for _ in range(60)]
    (tmp_path / "t.tsv").write_text(
        "label\tsequence\n" + "".join(f"{'ab'[i % 2]}\t{s}\n" for i, s in enumerate(sequences))
    )
    store = prepare(Sequences(files=(tmp_path / "t.tsv",)), tmp_path / "clean")
    clean = AuditSplits(data=store.path).run()
    assert not any(clean.metrics.values()) and not clean.warnings
    test = as_letters(store.split("test")[0]["bases"])
    train = as_letters(store.split("train")[0]["bases"])
    twin = as_letters(reverse_complement(encode(test.encode())))
    near = train[:60] + test[60:]
    twins = prepare_with(tmp_path, sequences, twin, near)
    found = AuditSplits(data=twins.path, keep_out=tmp_path / "names.txt").run()
    assert found.metrics["same sequence, either strand"] == 1
    assert found.metrics["homologous to training"] >= 1 and (tmp_path / "names.txt").read_text()


def prepare_with(tmp_path, sequences, twin, near):
    """Return a store in which `twin` is in training although its reverse complement is in the
    test split.
    """
    rows = "".join(f"{'ab'[i % 2]}\t{s}\n" for i, s in enumerate(sequences))
    (tmp_path / "u.tsv").write_text(
        "label\tsequence\n" + rows + "".join(f"a\t{s}\n" for s in (twin, near))
    )
    for seed in range(40):
        store = prepare(
            Sequences(files=(tmp_path / "u.tsv",), seed=seed), tmp_path / f"twins{seed}"
        )
        splits = {as_letters(store[i]["bases"]): int(store[i]["split"]) for i in range(len(store))}
        own = as_letters(reverse_complement(encode(twin.encode())))
        if splits[twin] == 0 and splits[own] == 2:
            return store
    raise AssertionError("no seed puts the twins apart")


def test_words_are_the_same_on_both_strands_and_skip_unknown_bases():
    rng = np.random.default_rng(0)
    bases = rng.integers(0, 4, 200).astype(np.uint8)
    assert np.array_equal(canonical_words([bases]), canonical_words([reverse_complement(bases)]))
    assert share_within(
        [reverse_complement(bases)[20:90]], canonical_words([bases])
    ) == pytest.approx([1.0])
    broken = bases.copy()
    broken[::10] = 4
    assert len(canonical_words([broken])) == 0 and share_within(
        [broken], canonical_words([bases])
    ) == pytest.approx([0.0])


def test_a_store_is_not_overwritten(fastas, tmp_path):
    prepare(Genome(files=fastas), tmp_path / "store")
    before = contents(tmp_path / "store")
    with pytest.raises(ConfigError, match="exists already"):
        prepare(Genome(files=fastas[:1]), tmp_path / "store")
    assert contents(tmp_path / "store") == before and len(Store.open(tmp_path / "store")) == 6


def test_repeated_contradictory_and_unknown_sequences_are_noted(tmp_path):
    rng = np.random.default_rng(0)
    rows = [f"{letters(rng, 40).upper().replace('N', 'A')},{'ab'[i % 2]},train" for i in range(20)]
    first = rows[0].split(",")[0]
    rows += [f"{first},b,test", f"{first},a,train", f"{first[:-1]}R,c,test"]
    (tmp_path / "t.csv").write_text("sequence,label,split\n" + "\n".join(rows) + "\n")
    notes = prepare(Sequences(files=(tmp_path / "t.csv",)), tmp_path / "store").meta["notes"]
    assert notes == [
        "2 rows repeat an earlier sequence",
        "1 sequences have different labels in different rows",
        "1 sequences stand in more than one split",
        "1 sequences hold unknown bases (N and other ambiguity codes)",
        "splits taken from the column split",
        "classes without a training sequence: c",
    ]


def test_one_number_written_in_two_ways_is_not_two_classes(tmp_path):
    (tmp_path / "t.csv").write_text("sequence,label\nACGTACGT,1\nACGTACGA,1.0\nAAGTACGA,0\n")
    with pytest.raises(DataError, match="'1' and '1.0'"):
        prepare(Sequences(files=(tmp_path / "t.csv",)), tmp_path / "store")


def test_audits_of_nothing_are_refused_and_not_perfect(fastas, tmp_path):
    short = prepare(Genome(files=fastas[:1], test=("c0a",), validation=("c0b",)), tmp_path / "g")
    with pytest.raises(ConfigError, match="no training window"):
        AuditMasks(data=short.path).run()
    with pytest.raises(ConfigError, match="those of the checkpoint"):
        AuditMasks(data=short.path, checkpoint=Path("run"), k=6)
    rng = np.random.default_rng(3)
    rows = [f"{letters(rng, 30)},{'ab'[i % 2]},train" for i in range(6)]
    rows += [f"{letters(rng, 12)},c,test"]
    (tmp_path / "t.csv").write_text("sequence,label,split\n" + "\n".join(rows) + "\n")
    store = prepare(Sequences(files=(tmp_path / "t.csv",)), tmp_path / "s")
    with pytest.raises(ConfigError, match="class 'c' has no training record"):
        AuditShortcuts(data=store.path).run()
    assert "1 test windows are shorter than 16 bases" in " ".join(
        AuditSplits(data=store.path).run().warnings
    )
