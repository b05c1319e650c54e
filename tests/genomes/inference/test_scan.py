"""Scans of a genome: scores, regions and tracks in their places on both strands."""

from dataclasses import dataclass

import matplotlib.pyplot
import numpy as np
import pandas as pd
import pytest
from genome_files import MOTIF, PLACE, WINDOW, changed, letters, rows_of, turned, write, yes

from sciforge.core.training.model import Model
from sciforge.errors import ConfigError, DataError
from sciforge.genomes import Scan
from sciforge.genomes.data.sequences import as_letters
from sciforge.genomes.inference.scan import BestWindows


@dataclass
class Finder(Model):
    """Says 'yes' with 0.95 where a window has the motif in its place, else with 0.05; stops
    after `calls` calls.
    """

    calls: int = 10**9

    def outputs(self, records):
        self.calls -= 1
        if self.calls < 0:
            raise DataError("the power is gone")
        seen = [
            as_letters(record["bases"])[PLACE : PLACE + len(MOTIF)] == MOTIF for record in records
        ]
        p_N = np.where(seen, 0.95, 0.05).astype(np.float32)
        return {"probability": np.stack([1 - p_N, p_N], axis=1)}


def finder(predictor, **options):
    return Finder(predictor.checkpoint, predictor.network, predictor.device, **options)


def test_a_planted_motif_is_found_in_its_place_on_either_strand(stranded, tmp_path):
    rng = np.random.default_rng(4)
    bases = changed(changed(letters(rng, 400), 95, MOTIF), 263, turned(MOTIF))
    assert bases.count(MOTIF) == bases.count(turned(MOTIF)) == 1
    genome = write(tmp_path / "g.fa", {"before": letters(rng, 90), "c": bases})
    out = Scan(genome=genome, step=1).run(finder(stranded)).save(tmp_path / "hits.bed")
    # of the window; on the other strand the motif lies PLACE bases before the window's end
    plus = 95 - PLACE
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
        assert high == [["c", str(middle), str(middle + 1), "0.95"]]


def test_regions_join_windows_that_touch_and_never_two_contigs(stranded, tmp_path):
    unit = changed("C" * 40, 0, MOTIF)  # a motif in its place every 40 bases, at 20, 60, 100
    ends = "C" * 20 + unit * 3 + "C" * 40
    genome = write(tmp_path / "g.fa", {"a": ends, "b": ends})
    out = Scan(genome=genome, step=20).run(finder(stranded)).save(tmp_path / "hits.bed")
    rows = [row for row in rows_of(out) if row[5] == "+"]
    assert [row[:3] for row in rows] == [["a", "0", "140"], ["b", "0", "140"]]


@pytest.mark.parametrize("step", [1, 7, 25, 80])
def test_scores_are_those_of_both_strands_and_tile_the_contig(stranded, tmp_path, step):
    rng = np.random.default_rng(5)
    contigs = {"a": letters(rng, 203), "b": letters(rng, WINDOW)}
    Scan(genome=write(tmp_path / "g.fa", contigs), step=step).run(stranded).save(tmp_path / "x.bed")
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
        assert np.array([row[3] for row in rows], float) == pytest.approx(
            yes(stranded, shown), abs=1e-4
        )


def test_a_strand_free_scan_has_one_track(free, tmp_path):
    genome = write(tmp_path / "g.fa", {"a": letters(np.random.default_rng(6), 100)})
    out = Scan(genome=genome, step=20, threshold=0.0).run(free).save(tmp_path / "x.bed")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["g.fa", "x.bed", "x.bedGraph", "x.json"]
    assert [row[:3] + row[5:6] for row in rows_of(out)] == [["a", "0", "100", "."]]


def test_windows_rich_in_n_are_left_out(stranded, tmp_path):
    bases = letters(np.random.default_rng(7), 300)
    bases = changed(changed(bases, 120, "N" * 40), 20, "N" * 6)  # 6 of 60 may be unknown
    genome = write(tmp_path / "g.fa", {"a": bases})
    Scan(genome=genome, step=10).run(finder(stranded)).save(tmp_path / "x.bed")
    expected = [s for s in range(0, 241, 10) if bases[s : s + WINDOW].count("N") <= 6]
    assert expected[0] == 0 and len(expected) < 20
    for strand in ("plus", "minus"):
        rows = rows_of(tmp_path / f"x.{strand}.bedGraph")
        assert [int(left) for _, left, _, _ in rows] == [s + 25 for s in expected]
        assert all(int(right) - int(left) == 10 for _, left, right, _ in rows)


def test_short_contigs_are_named_and_a_genome_of_them_refused(stranded, tmp_path):
    rng = np.random.default_rng(8)
    genome = write(tmp_path / "g.fa", {"stub": letters(rng, WINDOW - 1), "a": letters(rng, WINDOW)})
    result = Scan(genome=genome).run(stranded)
    result.save(tmp_path / "x.bed")
    assert result.about["not_scanned"] == {"stub": WINDOW - 1}
    assert [row[0] for row in rows_of(tmp_path / "x.plus.bedGraph")] == ["a"]
    with pytest.raises(DataError, match="no contig is as long as a window of 60 bases"):
        Scan(genome=genome, contigs=("stub",)).run(stranded).save(tmp_path / "y.bed")


def test_only_the_named_contigs_are_scanned(stranded, tmp_path):
    rng = np.random.default_rng(9)
    genome = write(
        tmp_path / "g.fa", {name: letters(rng, 80) for name in ("chrI", "chrII", "chrIII")}
    )
    Scan(genome=genome, contigs=("chrII",)).run(stranded).save(tmp_path / "x.bed")
    assert {row[0] for row in rows_of(tmp_path / "x.minus.bedGraph")} == {"chrII"}
    with pytest.raises(ConfigError, match="no contig 'chrIV'.*did you mean 'chrI") as error:
        Scan(genome=genome, contigs=("chrIV",)).run(stranded).save(tmp_path / "y.bed")
    assert "\n" not in str(error.value) and not list(tmp_path.glob("*y*"))


def test_a_scan_cut_short_leaves_the_old_files_as_they_were(stranded, tmp_path, monkeypatch):
    genome = write(tmp_path / "g.fa", {"a": letters(np.random.default_rng(10), 400)})
    result = Scan(genome=genome, step=50).run(stranded)
    before = {"x.bed": "old", "g.fa": genome.read_text()}
    (tmp_path / "x.bed").write_text("old")

    def stop(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(result, "_write_bedgraphs", stop)
    with pytest.raises(DataError, match="the disk is full"):
        result.save(tmp_path / "x.bed")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("options", [{"step": 0}, {"threshold": 1.5}, {"max_unknown": -0.1}])
def test_a_scan_refuses_impossible_options(tmp_path, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Scan(genome=tmp_path / "g.fa", **options)


def test_a_scan_is_a_table_that_pandas_opens_and_a_picture(stranded, tmp_path):
    bases = changed(letters(np.random.default_rng(21), 400), 95, MOTIF)
    genome = write(tmp_path / "g.fa", {"other": letters(np.random.default_rng(22), 90), "c": bases})
    result = finder(stranded).scan(genome, contigs=["c"], step=5)
    table = result.to_pandas()
    assert list(table.columns) == ["chrom", "start", "end", "strand", "probability"]
    assert set(table["chrom"]) == {"c"} and (table["end"] - table["start"] == WINDOW).all()
    high = table[table["probability"] > 0.5]
    assert high[["start", "strand"]].values.tolist() == [[75, "+"]]
    saved = pd.read_csv(result.save(tmp_path / "scan.tsv"), sep="\t")
    assert saved["probability"].tolist() == pytest.approx(table["probability"].tolist())
    assert len(result.regions(threshold=0.5)) == 1 and not len(result.regions(threshold=0.99))
    assert rows_of(result.to_bed(tmp_path / "r.bed", threshold=0.5))[0][:3] == ["c", "75", "135"]
    axes = result.plot("c:101-200")
    assert all(101 <= x <= 200 for line in axes.lines for x in line.get_xdata())
    # the middle of the window lies in the region
    assert max(axes.lines[0].get_ydata()) == pytest.approx(0.95)
    with pytest.raises(ConfigError, match="no contig 'd' in the scan"):
        result.plot("d:1-2")
    matplotlib.pyplot.close(axes.figure)


def test_a_scan_says_what_it_leaves_out_and_that_offsets_are_missed(stranded, tmp_path, caplog):
    rng = np.random.default_rng(41)
    genome = {"long": letters(rng, 100) + "N" * 100 + letters(rng, 100), "short": "ACGT" * 5}
    result = Scan(genome=write(tmp_path / "g.fa", genome), step=20, threshold=1.0).run(stranded)
    scanned = len(result.to_pandas()) // 2
    assert result.about["windows_left_out"] == 13 - scanned > 0
    assert "1 contigs shorter than a window" in caplog.text
    assert "windows left out for unknown bases" in caplog.text and "--step" in caplog.text


def test_windows_that_depend_on_one_offset_are_told_from_others():
    class Anchored:
        def outputs(self, records):
            p = [float(record["bases"][10] == 3) for record in records]
            return {"probability": np.stack([1 - np.array(p), p], axis=1)}

    class Free(Anchored):
        def outputs(self, records):
            p = np.array([float((record["bases"] == 3).any()) for record in records])
            return {"probability": np.stack([1 - p, p], axis=1)}

    bases = np.zeros(40, np.uint8)
    bases[10] = 3
    best = BestWindows(0.9)
    best.add([("c", 0, bases, True)], np.array([[1.0, 0.2]]))
    assert len(best.windows) == 1
    assert "one offset" in best.advice(Anchored(), 1, 20)
    assert not best.advice(Anchored(), 1, 1) and not best.advice(Free(), 1, 20)
