"""What a checkpoint says of sequences: tables, tracks and arrays, and that failures leave no file behind."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from sciforge.core.data.store import prepare
from sciforge.core.training.loop import train
from sciforge.core.training.model import Model
from sciforge.core.training.run import Hardware, Run, Schedule
from sciforge.errors import ConfigError, DataError
from sciforge.genomes import Classify, DnaBertConfig, KmerCodec
from sciforge.genomes.data.labelled_sequences import Sequences
from sciforge.genomes.data.sequences import as_letters, encode, reverse_complement
from sciforge.genomes.inference import mutagenesis
from sciforge.genomes.inference.mutagenesis import Mutagenesis
from sciforge.genomes.inference.scan import Scan
from sciforge.genomes.inference.sequence_classes import Classes, Embeddings
from sciforge.genomes.inference.variants import Variants

WINDOW, PLACE, MOTIF = 60, 20, "TATAATGG"


def letters(rng, length):
    return "".join(rng.choice(list("ACGT"), length))


def codes(text):
    return encode(text.encode())


def turned(text):
    return as_letters(reverse_complement(codes(text)))


def changed(text, place, base):
    return text[:place] + base + text[place + len(base) :]


def write(path, contigs):
    path.write_text("".join(f">{name}\n{bases}\n" for name, bases in contigs.items()))
    return path


def rows_of(path):
    lines = path.read_text().splitlines()
    return [line.split("\t") for line in lines if not line.startswith(("#", "track"))]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Checkpoints that tell windows with a motif in its place from others: one for each strand, one strand-free."""
    folder, rng = tmp_path_factory.mktemp("outputs"), np.random.default_rng(1)
    rows = []
    for n in range(80):
        bases = letters(rng, WINDOW)
        rows.append(f"{changed(bases, PLACE, MOTIF) if n % 2 else bases}\t{'yes' if n % 2 else 'no'}")
    (folder / "t.tsv").write_text("sequence\tlabel\n" + "\n".join(rows) + "\n")
    store = prepare(Sequences(files=(folder / "t.tsv",)), folder / "store")
    run = Run(
        data=store.path,
        out=folder / "stranded",
        model=DnaBertConfig(width=16, depth=1, heads=2, hidden=32),
        codec=KmerCodec(k=3),
        objective=Classify(bins=3),
        schedule=Schedule(steps=6, batch=16, lr=5e-3, kind="step"),
        hardware=Hardware(device="cpu", precision="float32", threads=1),
    )
    free = replace(run, out=folder / "free", objective=Classify(bins=3, strand_free=True, trees=False))
    return train(run), train(free)


@pytest.fixture
def stranded(trained):
    return Model.load(trained[0].path, device="cpu")


@pytest.fixture
def free(trained):
    return Model.load(trained[1].path, device="cpu")


@pytest.fixture
def pretrained(tiny):
    return Model.load(tiny.checkpoint.path, device="cpu")


@dataclass
class Finder(Model):
    """Says 'yes' with 0.95 where a window has the motif in its place, else with 0.05; stops after `calls` calls."""

    calls: int = 10**9

    def outputs(self, records):
        self.calls -= 1
        if self.calls < 0:
            raise DataError("the power is gone")
        seen = [as_letters(record["bases"])[PLACE : PLACE + len(MOTIF)] == MOTIF for record in records]
        p_N = np.where(seen, 0.95, 0.05).astype(np.float32)
        return {"probability": np.stack([1 - p_N, p_N], axis=1)}


def finder(predictor, **options):
    return Finder(predictor.checkpoint, predictor.network, predictor.device, **options)


def yes(predictor, sequences):
    return predictor.outputs({"bases": codes(s)} for s in sequences)["probability"][:, 1]


# Classes


def test_classes_are_what_the_predictor_says(stranded, tmp_path):
    rng = np.random.default_rng(2)
    contigs = {"whole": letters(rng, WINDOW), "short": letters(rng, 31), "long": letters(rng, 140)}
    out = Classes(files=(write(tmp_path / "s.fa", contigs),), out=tmp_path / "t.tsv").write(stranded)
    header, *rows = rows_of(out)
    assert header == ["name", "start", "end", "p(no)", "p(yes)", "class"]
    long = [("long", start, start + WINDOW) for start in (0, 30, 60, 80)]
    spans = [("whole", 0, WINDOW), ("short", 0, 31), *long]
    assert [(name, int(start), int(end)) for name, start, end, *_ in rows] == spans
    expected = stranded.outputs({"bases": codes(contigs[name][start:end])} for name, start, end in spans)["probability"]
    assert np.array([row[3:5] for row in rows], float) == pytest.approx(expected, abs=1e-6)
    assert [row[5] for row in rows] == [("no", "yes")[p] for p in expected.argmax(1)]
    about = json.loads(out.read_text().splitlines()[0].removeprefix("# "))
    assert about["checkpoint"] == str(stranded.checkpoint.path) and len(about["weights_sha256"]) == 64


def test_class_probabilities_do_not_depend_on_the_batch(stranded, free):
    rng = np.random.default_rng(3)
    sequences = [codes(letters(rng, length)) for length in (60, 12, 33, 60, 47, 25)]
    for predictor in (stranded, free):
        with torch.no_grad():  # near zero after so few steps
            predictor.network.heads["class"].place_CTR.normal_(generator=torch.Generator().manual_seed(0))
        together = predictor.outputs({"bases": s} for s in sequences)["probability"]
        alone = [predictor.outputs([{"bases": s}])["probability"][0] for s in sequences]
        assert together == pytest.approx(np.stack(alone), abs=1e-5)


def test_classes_refuse_what_they_cannot_score_and_leave_nothing(stranded, pretrained, tmp_path):
    good, out = write(tmp_path / "good.fa", {"a": "ACGT" * 15}), tmp_path / "t.tsv"
    bad = write(tmp_path / "bad.fa", {"b": "ACGT!ACGT"})
    with pytest.raises(DataError, match=r"bad\.fa:2: "):
        Classes(files=(good, bad), out=out).write(stranded)
    with pytest.raises(ConfigError, match="'c' .*shorter than k = 3"):
        Classes(files=(good, write(tmp_path / "c.fa", {"c": "AC"})), out=out).write(stranded)
    with pytest.raises(ConfigError, match="MaskedKmers, not to classify"):
        Classes(files=(good,), out=out).write(pretrained)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.fa", "c.fa", "good.fa"]


# Scan


def test_a_planted_motif_is_found_in_its_place_on_either_strand(stranded, tmp_path):
    rng = np.random.default_rng(4)
    bases = changed(changed(letters(rng, 400), 95, MOTIF), 263, turned(MOTIF))
    assert bases.count(MOTIF) == bases.count(turned(MOTIF)) == 1
    genome = write(tmp_path / "g.fa", {"before": letters(rng, 90), "c": bases})
    out = Scan(genome=genome, out=tmp_path / "hits.bed", step=1).write(finder(stranded))
    plus = 95 - PLACE  # of the window; on the other strand the motif lies PLACE bases before the window's end
    minus = 263 + len(MOTIF) + PLACE - WINDOW
    expected = {"+": ("c", plus), "-": ("c", minus)}
    rows = rows_of(out)
    assert {row[5]: (row[0], int(row[1])) for row in rows} == expected and len(rows) == 2
    for contig, start, end, name, score, _, best, best_end in rows:
        assert (contig, name, score) == ("c", "yes", "950")
        assert int(end) - int(start) == WINDOW and (best, best_end) == (start, end)
    for strand, at in (("plus", plus), ("minus", minus)):
        high = [row for row in rows_of(tmp_path / f"hits.{strand}.bedGraph") if float(row[3]) > 0.5]
        middle = at + WINDOW // 2
        assert high == [["c", str(middle), str(middle + 1), "0.9500"]]


def test_regions_join_windows_that_touch_and_never_two_contigs(stranded, tmp_path):
    unit = changed("C" * 40, 0, MOTIF)  # a motif in its place every 40 bases, at 20, 60, 100
    ends = "C" * 20 + unit * 3 + "C" * 40
    genome = write(tmp_path / "g.fa", {"a": ends, "b": ends})
    out = Scan(genome=genome, out=tmp_path / "hits.bed", step=20).write(finder(stranded))
    rows = [row for row in rows_of(out) if row[5] == "+"]
    assert [row[:3] for row in rows] == [["a", "0", "140"], ["b", "0", "140"]]


@pytest.mark.parametrize("step", [1, 7, 25, 80])
def test_scores_are_those_of_both_strands_and_tile_the_contig(stranded, tmp_path, step):
    rng = np.random.default_rng(5)
    contigs = {"a": letters(rng, 203), "b": letters(rng, WINDOW)}
    Scan(genome=write(tmp_path / "g.fa", contigs), out=tmp_path / "x.bed", step=step).write(stranded)
    windows = []
    for name, bases in contigs.items():
        last = len(bases) - WINDOW
        windows += [(name, start) for start in sorted({*range(0, last + 1, step), last})]
    sequences = [contigs[name][start : start + WINDOW] for name, start in windows]
    for strand, shown in (("plus", sequences), ("minus", [turned(s) for s in sequences])):
        rows = rows_of(tmp_path / f"x.{strand}.bedGraph")
        spans = [(name, int(left), int(right)) for name, left, right, _ in rows]
        assert [(name, left) for name, left, _ in spans] == [
            (name, max(start + WINDOW // 2 - step // 2, 0)) for name, start in windows
        ]
        assert all(left < right <= len(contigs[name]) for name, left, right in spans)
        for (name, _, right), (other, left, _) in zip(spans, spans[1:], strict=False):
            assert name != other or right <= left and (right == left or step > WINDOW)
        assert np.array([row[3] for row in rows], float) == pytest.approx(yes(stranded, shown), abs=1e-4)


def test_a_strand_free_scan_has_one_track(free, tmp_path):
    genome = write(tmp_path / "g.fa", {"a": letters(np.random.default_rng(6), 100)})
    out = Scan(genome=genome, out=tmp_path / "x.bed", step=20, threshold=0.0).write(free)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["g.fa", "x.bed", "x.bedGraph"]
    assert [row[:3] + row[5:6] for row in rows_of(out)] == [["a", "0", "100", "."]]


def test_windows_rich_in_n_are_left_out(stranded, tmp_path):
    bases = letters(np.random.default_rng(7), 300)
    bases = changed(changed(bases, 120, "N" * 40), 20, "N" * 6)  # 6 of 60 may be unknown
    genome = write(tmp_path / "g.fa", {"a": bases})
    Scan(genome=genome, out=tmp_path / "x.bed", step=10).write(finder(stranded))
    expected = [s for s in range(0, 241, 10) if bases[s : s + WINDOW].count("N") <= 6]
    assert expected[0] == 0 and len(expected) < 20
    for strand in ("plus", "minus"):
        rows = rows_of(tmp_path / f"x.{strand}.bedGraph")
        assert [int(left) for _, left, _, _ in rows] == [s + 25 for s in expected]
        assert all(int(right) - int(left) == 10 for _, left, right, _ in rows)


def test_short_contigs_are_named_and_a_genome_of_them_refused(stranded, tmp_path):
    rng = np.random.default_rng(8)
    genome = write(tmp_path / "g.fa", {"stub": letters(rng, WINDOW - 1), "a": letters(rng, WINDOW)})
    Scan(genome=genome, out=tmp_path / "x.bed").write(stranded)
    text = (tmp_path / "x.plus.bedGraph").read_text()
    assert "# stub has 59 bases, fewer than a window: not scanned\n" in text
    assert [row[0] for row in rows_of(tmp_path / "x.plus.bedGraph")] == ["a"]
    with pytest.raises(DataError, match="no contig is as long as a window of 60 bases"):
        Scan(genome=genome, out=tmp_path / "y.bed", contigs=("stub",)).write(stranded)


def test_only_the_named_contigs_are_scanned(stranded, tmp_path):
    rng = np.random.default_rng(9)
    genome = write(tmp_path / "g.fa", {name: letters(rng, 80) for name in ("chrI", "chrII", "chrIII")})
    Scan(genome=genome, out=tmp_path / "x.bed", contigs=("chrII",)).write(stranded)
    assert {row[0] for row in rows_of(tmp_path / "x.minus.bedGraph")} == {"chrII"}
    with pytest.raises(ConfigError, match="no contig 'chrIV'.*did you mean 'chrI") as error:
        Scan(genome=genome, out=tmp_path / "y.bed", contigs=("chrIV",)).write(stranded)
    assert "\n" not in str(error.value) and not list(tmp_path.glob("*y*"))


def test_a_scan_cut_short_leaves_the_old_files_as_they_were(stranded, tmp_path):
    genome = write(tmp_path / "g.fa", {"a": letters(np.random.default_rng(10), 400)})
    before = {"x.bed": "old", "g.fa": genome.read_text()}
    (tmp_path / "x.bed").write_text("old")
    with pytest.raises(DataError, match="the power is gone"):
        Scan(genome=genome, out=tmp_path / "x.bed", step=1).write(finder(stranded, batch=4, calls=5))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("options", [{"step": 0}, {"threshold": 1.5}, {"max_unknown": -0.1}])
def test_a_scan_refuses_impossible_options(tmp_path, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Scan(genome=tmp_path / "g.fa", out=tmp_path / "x.bed", **options)


# Variants


def variants_of(folder, predictor, contigs, rows, **options):
    """Write a genome and variants (contig, position from 1, ref, alt), and return the table's rows."""
    genome, table = write(folder / "g.fa", contigs), folder / "v.tsv"
    table.write_text("chrom\tpos\tref\talt\n" + "".join("\t".join(map(str, row)) + "\n" for row in rows))
    header, *found = rows_of(Variants(genome=genome, variants=table, out=folder / "v.out", **options).write(predictor))
    assert header[:6] == ["chrom", "pos", "id", "ref", "alt", "score"]
    return found


def swaps(bases, places, sizes):
    """Return (position from 1, ref, alt) of changes of every base."""
    spans = [(place, bases[place : place + size]) for place, size in zip(places, sizes, strict=True)]
    return [(place + 1, ref, ref.translate(str.maketrans("ACGT", "GTAC"))) for place, ref in spans]


def test_swapped_alleles_score_the_negative_on_the_mutated_genome(pretrained, stranded, tmp_path):
    bases = letters(np.random.default_rng(11), 150)
    found = swaps(bases, (0, 1, 40, 75, 147, 149), (1, 1, 1, 4, 3, 1))  # also at both ends
    for predictor in (pretrained, stranded):
        for pos, ref, alt in found:
            there = variants_of(tmp_path, predictor, {"c": bases}, [("c", pos, ref, alt)])
            back = variants_of(tmp_path, predictor, {"c": changed(bases, pos - 1, alt)}, [("c", pos, alt, ref)])
            score = np.array([there[0][5:], back[0][5:]], float)
            assert score[0] == pytest.approx(-score[1], abs=2e-5) and np.isfinite(score).all()
            assert predictor is stranded or abs(score[0, 0]) > 1e-4


def test_the_masked_score_never_sees_the_allele(pretrained, tmp_path):
    bases = letters(np.random.default_rng(12), 120)
    scores = []
    for ref in "ACGT":
        genome = {"c": changed(bases, 60, ref)}
        rows = [("c", 61, ref, alt) for alt in "ACGT"]
        scores.append([float(row[5]) for row in variants_of(tmp_path, pretrained, genome, rows)])
    score_44 = np.array(scores)  # ref, alt: differences of the same four log-probabilities
    assert np.diag(score_44).tolist() == [0] * 4  # ref = alt
    assert score_44 == pytest.approx(score_44[0] - score_44[0][:, None], abs=3e-5) and np.abs(score_44).max() > 1e-3


def test_masked_scores_are_the_same_on_the_other_strand(pretrained, tmp_path):
    bases = letters(np.random.default_rng(13), 48)  # as long as the window, which is then the same on both strands
    there = variants_of(tmp_path, pretrained, {"c": bases}, [("c", 11, bases[10], alt) for alt in "ACGT"])
    other = [("c", 48 - 10, turned(bases[10]), turned(alt)) for alt in "ACGT"]
    back = variants_of(tmp_path, pretrained, {"c": turned(bases)}, other)
    assert [float(row[5]) for row in there] == pytest.approx([float(row[5]) for row in back], abs=2e-5)


def test_class_scores_are_changes_in_log_odds_of_centred_windows(stranded, tmp_path):
    bases = changed(letters(np.random.default_rng(14), 200), 100, "ACG")
    mutant = changed(bases, 101, "T")
    window = slice(101 - 29, 101 + 31)  # (window - 1) // 2 bases before the variant
    shown = [bases[window], turned(bases[window]), mutant[window], turned(mutant[window])]
    p = yes(stranded, shown).astype(float)
    ref_plus, ref_minus, alt_plus, alt_minus = np.log(p / (1 - p))
    (row,) = variants_of(tmp_path, stranded, {"c": bases}, [("c", 102, "C", "T")])
    plus, minus = alt_plus - ref_plus, alt_minus - ref_minus
    assert np.array(row[5:], float) == pytest.approx([(plus + minus) / 2, plus, minus], abs=1e-3)


def test_insertions_have_no_masked_score_but_a_class_score(pretrained, stranded, tmp_path):
    rows = [("c", 51, "A", "ACC"), ("c", 51, "ACC", "A")]
    bases = changed(letters(np.random.default_rng(15), 120), 50, "ACC")
    assert [row[5] for row in variants_of(tmp_path, pretrained, {"c": bases}, rows)] == ["nan", "nan"]
    assert all(np.isfinite(float(row[5])) for row in variants_of(tmp_path, stranded, {"c": bases}, rows))


@pytest.mark.parametrize(
    "row, fault",
    [
        ("c\t5\t.\tG\tT", "ref is G but c has A at 5"),
        ("c\t5\t.\tA\t<DEL>", "alt is '<DEL>'"),
        ("c\t0\t.\tA\tT", "position '0'"),
        ("c\t61\t.\tA\tT", "c"),  # behind the end
        ("other\t5\t.\tA\tT", "other"),
        ("c\t5\t.", "3 columns"),
    ],
)
def test_a_wrong_variant_is_named_by_file_and_line(pretrained, tmp_path, row, fault):
    genome, vcf = write(tmp_path / "g.fa", {"c": "ACGT" * 15}), tmp_path / "v.vcf"
    vcf.write_text(f"##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\nc\t1\t.\tA\tT\n{row}\n")
    with pytest.raises(DataError, match=r"v\.vcf:4: ") as error:
        Variants(genome=genome, variants=vcf, out=tmp_path / "o.tsv").write(pretrained)
    assert fault in str(error.value) and "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.fa", "v.vcf"]


# Mutagenesis


def effects(path):
    header, *rows = rows_of(path)
    assert header == ["contig", "pos", "strand", "ref", "A", "C", "G", "T"]
    return [(int(row[1]), row[2], row[3]) for row in rows], np.array([row[4:] for row in rows], float)


def map_of(folder, predictor, bases, region, name="m.png"):
    genome = write(folder / "g.fa", {"c": bases})
    out = Mutagenesis(genome=genome, out=folder / name, region=region).write(predictor)
    assert out.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") and len(out.read_bytes()) > 2000
    return effects(out.with_suffix(".tsv"))


def test_a_map_has_zero_at_the_reference_and_the_effect_of_each_change(stranded, tmp_path):
    bases = letters(np.random.default_rng(16), 100)
    places, effect_L4 = map_of(tmp_path, stranded, bases, "c:11-70:-")
    shown = turned(bases[10:70])
    assert places == [(70 - i, "-", letter) for i, letter in enumerate(shown)]
    reference = effect_L4[np.arange(60), codes(shown)]
    assert not reference.any() and np.abs(effect_L4).max() > 0.01
    p = yes(stranded, [shown, changed(shown, 22, "A"), changed(shown, 22, "C")]).astype(float)
    odds = np.log(p / (1 - p))
    assert effect_L4[22, :2] == pytest.approx(odds[1:] - odds[0], abs=1e-3)


def test_a_masked_map_agrees_with_variant_scores_on_both_strands(pretrained, tmp_path):
    bases = changed(letters(np.random.default_rng(17), 90), 33, "N")
    places, effect_L4 = map_of(tmp_path, pretrained, bases, "c:31-38")
    assert places == [(31 + i, "+", bases[30 + i]) for i in range(8)]
    known = [i for i in range(8) if i != 3]
    assert not effect_L4[known, codes(bases[30:38])[known]].any()
    assert effect_L4[3].sum() == pytest.approx(0, abs=3e-5)  # of N: less the mean
    rows = [("c", 35, bases[34], alt) for alt in "ACGT"]
    scores = [float(row[5]) for row in variants_of(tmp_path, pretrained, {"c": bases}, rows)]
    assert effect_L4[4] == pytest.approx(scores, abs=2e-5)
    back, turned_L4 = map_of(tmp_path, pretrained, bases, "c:31-38:-", "n.png")
    assert back == [(pos, "-", as_letters(reverse_complement(codes(ref)))) for pos, _, ref in reversed(places)]
    assert np.array_equal(turned_L4, effect_L4[::-1, ::-1])


def test_a_failed_map_leaves_neither_picture_nor_table(stranded, tmp_path, monkeypatch):
    genome = write(tmp_path / "g.fa", {"c": "ACGT" * 15})
    wrong = {"c:0-5": DataError, "c:50-61": DataError, "c:5": ConfigError, "d": ConfigError, "c:1-2": ConfigError}
    for region, kind in wrong.items():
        with pytest.raises(kind) as error:
            Mutagenesis(genome=genome, out=tmp_path / "m.png", region=region).write(stranded)
        assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match=r"ends in \.png"):
        Mutagenesis(genome=genome, out=tmp_path / "m.pdf").write(stranded)

    def stop(file, *_):
        file.write(b"half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mutagenesis, "draw", stop)
    with pytest.raises(DataError, match="m.png"):
        Mutagenesis(genome=genome, out=tmp_path / "m.png", region="c:1-9").write(stranded)
    assert [path.name for path in tmp_path.iterdir()] == ["g.fa"]


# Embeddings


def embedded(folder, predictor, contigs, **options):
    files = (write(folder / "s.fa", contigs),)
    with np.load(Embeddings(files=files, out=folder / "e.npz", **options).write(predictor)) as found:
        return dict(found)


def test_embeddings_are_named_and_the_means_of_real_tokens(pretrained, tmp_path):
    rng = np.random.default_rng(18)
    contigs = {"a": letters(rng, 40), "b": letters(rng, 7), "c": letters(rng, 130)}
    found = embedded(tmp_path, pretrained, contigs, layers=(0, -1, 2))
    assert set(found) == {"names", "provenance", "layer_0", "layer_2"}  # -1 and 2 are one layer
    assert found["names"].tolist() == ["a", "b", "c"]
    assert found["layer_0"].shape == found["layer_2"].shape == (3, 16) and found["layer_2"].dtype == np.float32
    windows = {"a": [contigs["a"]], "b": [contigs["b"]]}
    windows["c"] = [contigs["c"][start : start + 48] for start in (0, 48, 82)]
    for row, name in enumerate(windows):
        batches = [pretrained.codec.collate([{"bases": torch.tensor(codes(w))}]) for w in windows[name]]
        with torch.no_grad():
            states = torch.cat([pretrained.network(batch)[0] for batch in batches])
        assert found["layer_2"][row] == pytest.approx(states.mean(0).numpy(), abs=1e-5)


def test_embeddings_do_not_depend_on_the_batch(tiny, tmp_path):
    rng = np.random.default_rng(19)
    contigs = {f"s{n}": letters(rng, n) for n in (130, 20, 48, 97, 60, 9)}
    found = [
        embedded(tmp_path, Model.load(tiny.checkpoint.path, "cpu", batch), contigs, layers=(0, 1, 2))
        for batch in (1, 2, 64)
    ]
    for other in found[1:]:
        assert all(other[name] == pytest.approx(found[0][name], abs=1e-5) for name in other if "layer" in name)


def test_embeddings_of_both_strands_do_not_know_the_strand(pretrained, tmp_path):
    bases = letters(np.random.default_rng(20), 45)
    one = embedded(tmp_path, pretrained, {"a": bases, "b": turned(bases)}, both_strands=False)["layer_2"]
    both = embedded(tmp_path, pretrained, {"a": bases, "b": turned(bases)}, both_strands=True)["layer_2"]
    assert both[0] == pytest.approx(both[1], abs=1e-5) and np.abs(one[0] - one[1]).max() > 1e-3
    assert both[0] == pytest.approx(one.mean(0), abs=1e-5)


def test_embeddings_refuse_layers_that_are_not_there(pretrained, tmp_path):
    for layers in ((3,), (-4,), ()):
        with pytest.raises(ConfigError, match="layer"):
            embedded(tmp_path, pretrained, {"a": "ACGTACGT"}, layers=layers)
    assert not (tmp_path / "e.npz").exists()
