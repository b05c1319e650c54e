"""Maps of base changes: zero at the reference, the same on both strands, whole or not at all."""

import numpy as np
import pandas as pd
import pytest
from genome_files import changed, codes, letters, turned, write, yes

from sciforge.errors import ConfigError, DataError
from sciforge.genomes import Mutagenesis
from sciforge.genomes.data.sequences import as_letters, reverse_complement
from sciforge.genomes.inference import mutagenesis_map


def effects(table):
    assert list(table.columns) == ["contig", "pos", "strand", "ref", "A", "C", "G", "T"]
    places = [tuple(row) for row in table[["pos", "strand", "ref"]].itertuples(index=False)]
    return places, table[list("ACGT")].to_numpy()


def map_of(folder, predictor, bases, region, name="m.png"):
    genome = write(folder / "g.fa", {"c": bases})
    out = Mutagenesis(genome=genome, region=region).run(predictor).save(folder / name)
    assert out.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") and len(out.read_bytes()) > 2000
    return effects(pd.read_csv(out.with_suffix(".tsv"), sep="\t", keep_default_na=False))


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
    rows = pd.DataFrame(
        [("c", 35, bases[34], alt) for alt in "ACGT"], columns=["chrom", "pos", "ref", "alt"]
    )
    scores = pretrained.variants(rows, tmp_path / "g.fa").to_pandas()["score"].to_numpy()
    assert effect_L4[4] == pytest.approx(scores, abs=2e-5)
    back, turned_L4 = map_of(tmp_path, pretrained, bases, "c:31-38:-", "n.png")
    assert back == [
        (pos, "-", as_letters(reverse_complement(codes(ref)))) for pos, _, ref in reversed(places)
    ]
    assert np.array_equal(turned_L4, effect_L4[::-1, ::-1])


def test_a_failed_map_leaves_neither_picture_nor_table(stranded, tmp_path, monkeypatch):
    genome = write(tmp_path / "g.fa", {"c": "ACGT" * 15})
    wrong = {
        "c:0-5": ConfigError,
        "c:50-61": DataError,
        "c:5": ConfigError,
        "d": ConfigError,
        "c:1-2": ConfigError,
    }
    for region, kind in wrong.items():
        with pytest.raises(kind) as error:
            Mutagenesis(genome=genome, region=region).run(stranded)
        assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="m.pdf"):
        Mutagenesis(genome=genome).run(stranded).save(tmp_path / "m.pdf")

    def stop(file, *_):
        file.write(b"half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mutagenesis_map, "draw", stop)
    with pytest.raises(DataError, match="m.png"):
        Mutagenesis(genome=genome, region="c:1-9").run(stranded).save(tmp_path / "m.png")
    assert [path.name for path in tmp_path.iterdir()] == ["g.fa"]


def test_a_sequence_in_memory_has_the_map_of_its_file(stranded, tmp_path):
    bases = letters(np.random.default_rng(24), 60)
    _, expected = map_of(tmp_path, stranded, bases, "c:1-60")
    result = stranded.mutagenesis(bases)
    assert result.effect_L4 == pytest.approx(expected, abs=1e-5)
    axes = result.plot()
    assert axes.images[0].get_array().shape == (4, 60)
    with pytest.raises(ConfigError, match="either a sequence, or a genome"):
        stranded.mutagenesis()


def test_options_of_another_kind_of_checkpoint_are_refused(stranded, pretrained):
    with pytest.raises(ConfigError, match="window is for a pretraining checkpoint"):
        stranded.mutagenesis("ACGT" * 15, window=20)
    with pytest.raises(ConfigError, match="label 'yes' is for a classification"):
        pretrained.mutagenesis("ACGT" * 15, label="yes")
    with pytest.raises(ConfigError, match="region 'c:1-9' is of a genome"):
        stranded.mutagenesis("ACGT" * 15, region="c:1-9")
