"""Effects of variants: signs, strands, hidden alleles, and wrong rows named by file and line."""

import numpy as np
import pandas as pd
import pytest
from genome_files import changed, letters, turned, write, yes

from sciforge.errors import ConfigError, DataError
from sciforge.genomes import Variants


def variants_of(folder, predictor, contigs, rows, **options):
    """Write a genome and variants (contig, position from 1, ref, alt), and return the table's
    rows.
    """
    genome, table = write(folder / "g.fa", contigs), folder / "v.tsv"
    table.write_text(
        "chrom\tpos\tref\talt\n" + "".join("\t".join(map(str, row)) + "\n" for row in rows)
    )
    frame = Variants(genome=genome, variants=table, **options).run(predictor).to_pandas()
    assert list(frame.columns)[:6] == ["chrom", "pos", "id", "ref", "alt", "score"]
    return frame.values.tolist()


def swaps(bases, places, sizes):
    """Return (position from 1, ref, alt) of changes of every base."""
    spans = [
        (place, bases[place : place + size]) for place, size in zip(places, sizes, strict=True)
    ]
    return [(place + 1, ref, ref.translate(str.maketrans("ACGT", "GTAC"))) for place, ref in spans]


def test_swapped_alleles_score_the_negative_on_the_mutated_genome(pretrained, stranded, tmp_path):
    bases = letters(np.random.default_rng(11), 150)
    found = swaps(bases, (0, 1, 40, 75, 147, 149), (1, 1, 1, 4, 3, 1))  # also at both ends
    for predictor in (pretrained, stranded):
        for pos, ref, alt in found:
            there = variants_of(tmp_path, predictor, {"c": bases}, [("c", pos, ref, alt)])
            back = variants_of(
                tmp_path, predictor, {"c": changed(bases, pos - 1, alt)}, [("c", pos, alt, ref)]
            )
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
    assert (
        score_44 == pytest.approx(score_44[0] - score_44[0][:, None], abs=3e-5)
        and np.abs(score_44).max() > 1e-3
    )


def test_masked_scores_are_the_same_on_the_other_strand(pretrained, tmp_path):
    # as long as the window, which is then the same on both strands
    bases = letters(np.random.default_rng(13), 48)
    there = variants_of(
        tmp_path, pretrained, {"c": bases}, [("c", 11, bases[10], alt) for alt in "ACGT"]
    )
    other = [("c", 48 - 10, turned(bases[10]), turned(alt)) for alt in "ACGT"]
    back = variants_of(tmp_path, pretrained, {"c": turned(bases)}, other)
    assert [float(row[5]) for row in there] == pytest.approx(
        [float(row[5]) for row in back], abs=2e-5
    )


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
    assert all(np.isnan(row[5]) for row in variants_of(tmp_path, pretrained, {"c": bases}, rows))
    assert all(
        np.isfinite(float(row[5])) for row in variants_of(tmp_path, stranded, {"c": bases}, rows)
    )


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
        Variants(genome=genome, variants=vcf).run(pretrained)
    assert fault in str(error.value) and "\n" not in str(error.value)


def test_variants_in_memory_are_those_of_the_file(stranded, tmp_path):
    bases = letters(np.random.default_rng(23), 150)
    rows = [("c", 40, bases[39], "A"), ("c", 90, bases[89], "C")]
    expected = variants_of(tmp_path, stranded, {"c": bases}, rows)
    table = pd.DataFrame(rows, columns=["chrom", "pos", "ref", "alt"])
    result = stranded.variants(table, tmp_path / "g.fa")
    assert result.to_pandas().values.tolist() == expected
    with pytest.raises(DataError, match="variants:1: ref is"):
        stranded.variants(
            table.assign(pos=[40, 91], ref=[bases[39], turned(bases[90])]), tmp_path / "g.fa"
        )
    assert len(result.plot().patches) == 2


def test_bad_rows_are_left_out_on_request_and_listed(stranded, tmp_path, caplog):
    bases = letters(np.random.default_rng(31), 150)
    genome, vcf = write(tmp_path / "g.fa", {"c": bases}), tmp_path / "v.vcf"
    other = "ACGT"["CGTA".index(bases[59])]
    rows = [f"c\t40\ta\t{bases[39]}\tN", f"c\t60\tb\t{other}\tA,C", f"c\t90\tc\t{bases[89]}\tAC"]
    vcf.write_text("#CHROM\tPOS\tID\tREF\tALT\n" + "\n".join(rows) + "\n")
    result = Variants(genome=genome, variants=vcf, on_error="skip").run(stranded)
    assert result.to_pandas()["id"].tolist() == ["c"]
    assert [reject["line"] for reject in result.about["rejected"]] == [2, 3, 3]
    assert "3 bad records left out" in caplog.text
    vcf.write_text("\n".join(["#CHROM\tPOS\tID\tREF\tALT", rows[1]]) + "\n")
    with pytest.raises(DataError, match="every variant was rejected"):
        Variants(genome=genome, variants=vcf, on_error="skip").run(stranded)


def test_a_label_is_refused_by_a_pretrained_model(pretrained, tmp_path):
    write(tmp_path / "g.fa", {"c": "ACGT" * 15})
    table = pd.DataFrame([("c", 1, "A", "C")], columns=["chrom", "pos", "ref", "alt"])
    with pytest.raises(ConfigError, match="label 'yes' is for a classification"):
        pretrained.variants(table, tmp_path / "g.fa", label="yes")
