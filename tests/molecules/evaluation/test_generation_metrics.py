"""Metrics of generated molecules: MOSES' own numbers on a small set, hand-computed ones on tiny
sets, and what is invalid.
"""

import math

import numpy as np
import pytest
from rdkit import Chem
from scipy.stats import wasserstein_distance

from sciforge.errors import DataError, MissingExtra
from sciforge.molecules.evaluation import fcd
from sciforge.molecules.evaluation.comparison import Reference, compare
from sciforge.molecules.evaluation.fcd import FrechetTo, Moments, activations, moments
from sciforge.molecules.evaluation.features import Features, features_of, scaffold_of
from sciforge.molecules.evaluation.filters import MCF, passes
from sciforge.molecules.evaluation.generated_files import judge, pick_strings, read_strings
from sciforge.molecules.evaluation.hash_index import hash_index_of
from sciforge.molecules.evaluation.metrics import (
    Bag,
    bootstrapped,
    cosine,
    fraction,
    uniqueness,
    wasserstein_to,
)
from sciforge.molecules.evaluation.similarity import BLOCK, mean_similarity, nearest

# Samples of MOSES' test set and of DiGress; the metrics are molsets 0.3.1's on them (RDKit 2026.09,
# fcd_torch 1.0.7).
SAMPLE = (
    "C#CCN1CCN(C(=O)NCc2ccc(C)cc2SC)CC1 Cc1ccc(NC(=O)c2cc(S(C)(=O)=O)ccc2C)c(F)c1"
    " CC(C)CN(CC(C)C)C(=O)Cn1c(CO)nc2ccccc21 CCCn1c(=O)[nH]c(=O)c2c1nc(C(F)(F)F)n2CCOC"
    " C=CCNc1cc(=O)n(C)c(=O)n1Cc1ccc(S(C)(=O)=O)cc1 CCOc1ccc(C(=O)c2ccc(N)cc2)c(C)c1"
    " Cc1ccc(N2CCN(Cc3cc(F)cc(C(N)=O)c3F)CC2)cc1 NC(=O)c1cc(Cl)nc(COc2ccc(F)cc2F)n1"
    " COc1ccc(CNC(=O)Nc2nnn(C)n2)cc1Br Cc1ccc(-n2cccn2)c(NC(=O)Nc2nncs2)c1"
    " CCSc1cc2c(cc1C(C)C#N)NC(=O)CO2 CC1CN(C(=O)NCc2cccc(CN(C)C)c2)CCO1"
).split()
OTHERS = (
    "CS(=O)(=O)N1CCN(C(=O)NCc2cccc(F)c2)CC1 NC(=O)c1cccc(NC(=O)c2cc(Br)ccc2F)c1"
    " CCCn1c(SCCCNC(C)=O)nc2cc(Cl)ccc21 C=CCn1c(SCCCC)nc2c1c(=O)n(C)c(=O)n2C"
    " O=c1[nH]c(=O)n(Cc2cc(Br)ccc2Cl)cc1Cl COCC(=O)Nc1ccc(C(=O)c2ccccc2)cc1"
    " C#CCN1CCN(C(=O)NCc2cccc(Cl)c2)CC1 CN1CCc2nc(SCC(=O)Nc3ccccc3)c(C#N)cc2C1"
    " Cc1csc(N(C)Cc2nnc(-c3ccc(C#N)cc3)o2)n1 N#Cc1ccccc1S(=O)(=O)NCc1ccccn1"
    " CS(=O)(=O)N1CCN(C(=O)NCc2cccc(F)c2)CC1 NC(=O)c1cccc(NC(=O)c2cc(Br)ccc2F)c1"
    " O=C(NC1CC1)C1CCN(C(=O)c2cc3sccn3c2)CC1 COC(=O)C(C)N(C(=O)Cc1c[nH]c2ccccc12)C1CC1"
).split()
MOSES = {
    "snn": 0.25205059722065926,
    "fragments": 0.7446650242533371,
    "scaffolds": 0.5539117094069973,
    "diversity": 0.7885627332660887,
    "filters": 0.8333333333333334,
    "logP_distance": 0.16128190476190482,
    "SA_distance": 0.24464629784700892,
    "QED_distance": 0.040179527903233196,
    "weight_distance": 6.763499999999994,
}
MOSES_FCD = 50.112609825350745


@pytest.fixture(scope="module")
def others() -> Features:
    return features_of(OTHERS, False)


def needs_fcd() -> None:
    pytest.importorskip("fcd_torch", reason="fcd_torch holds the net of FCD")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("CC.CC", "several components"),
        ("CC(=O)[O-].[Na+]", "several components"),
        ("C[CH2]", "radical"),
        ("C[N+]C", "radical"),
        ("C[N](C)(C)C", "breaks a valence"),
        ("c1cccc1", "cannot be kekulised"),
        ("C1CC", "not a SMILES"),
        ("*CC", "dummy atom"),
        ("C1.C1", ""),  # a bond across the dot: one molecule
        ("C[N+](=O)[O-]", ""),
    ],
)
def test_what_is_valid(text: str, reason: str):
    sample = judge(text)
    assert sample.reason == reason
    assert bool(sample.plain) == bool(sample.smiles) == (not reason)


def test_spelling_stereo_and_maps_do_not_make_another_molecule():
    spellings = ["C[C@H](O)CC", "C[C@@H](O)CC", "OC(C)CC", "[CH3:1][CH](O)CC", "CCC(C)[OH]"]
    assert len({judge(text).plain for text in spellings}) == 1
    # ChemNet reads the stereochemistry
    assert judge(spellings[0]).smiles != judge(spellings[1]).smiles


def test_uniqueness_counts_the_first_valid_ones():
    plain = ["CCO", "CCO", "CC", "C"]
    assert uniqueness(plain).value == 0.75 and uniqueness(plain, 2).value == 0.5


@pytest.mark.parametrize(("hits", "count"), [(0, 1), (1, 1), (0, 1000), (1000, 1000), (1, 3)])
def test_a_fraction_lies_in_its_interval(hits: int, count: int):
    figure = fraction(hits, count)
    assert 0 <= figure.low <= figure.value <= figure.high <= 1
    assert figure.high - figure.low > 0


def test_metrics_are_those_of_moses(others: Features):
    found = compare(SAMPLE, Reference(others, None))
    assert "fcd" not in found.metrics and not found.omitted
    for name, value in MOSES.items():
        figure = found.metrics[name]
        assert figure.value == pytest.approx(value, abs=1e-6), name
        assert figure.low <= figure.value <= figure.high and figure.count == len(SAMPLE)


def test_fcd_is_that_of_moses_though_the_covariances_are_singular():
    needs_fcd()
    distance = FrechetTo(moments(activations(OTHERS)))(moments(activations(SAMPLE)))
    assert distance == pytest.approx(MOSES_FCD, rel=1e-3)


def test_a_sample_is_at_no_distance_from_itself(others: Features):
    needs_fcd()
    frechet = FrechetTo(moments(activations(OTHERS)))
    metrics = compare(OTHERS, Reference(others, frechet)).metrics
    assert metrics["fcd"].value == pytest.approx(0, abs=1e-3)
    assert [metrics[name].value for name in ("snn", "fragments", "scaffolds")] == pytest.approx(
        [1, 1, 1]
    )
    assert [f.value for name, f in metrics.items() if name.endswith("_distance")] == pytest.approx(
        [0] * 6, abs=1e-9
    )


def test_frechet_of_gaussians_by_hand():
    rng = np.random.default_rng(0)
    mean = rng.standard_normal(4)
    one, other = (
        Moments(np.zeros(4), np.diag([1.0, 4, 9, 0]), 9),
        Moments(mean, np.diag([4.0, 1, 9, 1]), 9),
    )
    assert FrechetTo(one)(other) == pytest.approx(mean @ mean + 1 + 1 + 0 + 1)
    assert FrechetTo(other)(one) == pytest.approx(FrechetTo(one)(other))


@pytest.mark.parametrize("count", [3, 9])
def test_frechet_of_weighted_molecules_is_that_of_their_moments(count: int):
    rng = np.random.default_rng(count)
    acts, weight = (
        rng.standard_normal((count, 5)).astype(np.float32) + 3,
        rng.integers(0, 3, count) + 0.0,
    )
    frechet = FrechetTo(moments(rng.standard_normal((20, 5))))
    assert frechet.of_weighted(acts)(weight) == pytest.approx(frechet(moments(acts, weight)))


def test_weights_are_repetitions():
    acts = np.random.default_rng(0).standard_normal((5, 3))
    weight = np.array([2.0, 0, 1, 1, 3])
    found, plain = moments(acts, weight), moments(np.repeat(acts, weight.astype(int), axis=0))
    assert np.allclose(found.mean_D, plain.mean_D) and np.allclose(found.cov_DD, plain.cov_DD)
    assert np.allclose(plain.cov_DD, np.cov(np.repeat(acts, weight.astype(int), axis=0).T))


def test_moments_of_other_files_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", mu=np.zeros(3), sigma=np.zeros((3, 3)))
    (tmp_path / "b.npz").write_text("no archive")
    for name in ("a.npz", "b.npz", "c.npz"):
        with pytest.raises(DataError, match=name):
            Moments.load(tmp_path / name)


def test_fcd_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "fcd_torch", None)
    with pytest.raises(MissingExtra, match=r"sciforge\[fcd\]"):
        fcd.require_fcd()


def test_similarities_over_several_blocks_by_hand():
    rng = np.random.default_rng(0)
    stock = np.packbits(rng.random((BLOCK + 3, 64)) < 0.3, axis=1)
    query = np.concatenate([stock[-1:], np.packbits(rng.random((2, 64)) < 0.3, axis=1)])

    def tanimoto(a: np.ndarray, b: np.ndarray) -> float:
        a, b = np.unpackbits(a), np.unpackbits(b)
        return (a & b).sum() / (a | b).sum()

    best = [max(tanimoto(one, other) for other in stock) for one in query]
    assert best[0] == 1 and nearest(query, stock) == pytest.approx(best, abs=1e-6)
    mean = [np.mean([tanimoto(one, other) for other in stock]) for one in stock[:2]]
    assert mean_similarity(stock)[:2] == pytest.approx(mean, abs=1e-6)


def test_wasserstein_is_scipys():
    rng = np.random.default_rng(0)
    ours, theirs, weight = (
        rng.standard_normal(50).round(1),
        rng.standard_normal(70).round(1),
        rng.integers(1, 4, 50),
    )
    expected = wasserstein_distance(ours, theirs, weight.astype(float))
    assert wasserstein_to(ours, np.arange(50), theirs)(weight.astype(float)) == pytest.approx(
        expected
    )


def test_cosine_of_counts_by_hand():
    sample, other = Bag.of([["a", "a"], ["b"], []]), Bag.of([["a"], ["b", "c"]])
    assert cosine(sample, other) == pytest.approx(3 / math.sqrt(5 * 3))
    assert cosine(sample, other, np.array([0.0, 1.0, 1.0])) == pytest.approx(1 / math.sqrt(3))


def test_the_bootstrap_has_the_std_of_a_mean():
    values = np.random.default_rng(0).standard_normal(400)
    figure = bootstrapped(
        lambda weight: weight @ values / weight.sum(), 400, 0, 400, (-math.inf, math.inf)
    )
    assert (figure.high - figure.low) / (2 * 1.96) == pytest.approx(values.std() / 20, rel=0.15)


def test_the_interval_of_diversity_is_honest():
    """Over many draws of 30 molecules the figure moves as its interval says."""
    bits = np.packbits(
        np.random.default_rng(0).random((600, 64)) < np.linspace(0.1, 0.6, 600)[:, None], axis=1
    )
    values, reach = [], []
    for seed in range(60):
        some = bits[np.random.default_rng(seed).choice(600, 30, replace=False)]
        row = 1 - mean_similarity(some)
        values.append(row.mean())
        reach.append(2 * row.std(ddof=1) / math.sqrt(30))
    assert np.mean(reach) == pytest.approx(np.std(values), rel=0.4)


def test_traits_come_back_from_disk(tmp_path, others: Features):
    others.save(tmp_path / "features")
    back = Features.load(tmp_path / "features")
    assert (back.bits_NB == others.bits_NB).all() and (back.values_NP == others.values_NP).all()
    for name in ("fragments", "scaffolds", "rings"):
        one, other = getattr(back, name), getattr(others, name)
        assert (
            one.words == other.words
            and (one.word_M == other.word_M).all()
            and (one.owner_M == other.owner_M).all()
        )


def test_molecules_without_rings_or_scaffolds_leave_metrics_out(others: Features):
    found = compare(["CCO", "CC"], Reference(others, None))
    assert set(found.omitted) == {"scaffolds", "rings_distance"}
    assert all(
        math.isfinite(f.value) and math.isfinite(f.low) and math.isfinite(f.high)
        for f in found.metrics.values()
    )
    assert scaffold_of(Chem.MolFromSmiles("CCO")) == ""


def test_one_molecule_has_no_fcd_but_finite_metrics(others: Features):
    frechet = FrechetTo(Moments(np.zeros(512), np.eye(512), 9))
    found = compare(["c1ccc2ccccc2c1"], Reference(others, frechet))
    assert "covariance" in found.omitted["fcd"]
    ends = [
        end for figure in found.metrics.values() for end in (figure.value, figure.low, figure.high)
    ]
    assert np.isfinite(ends).all()


def test_filters_refuse_what_they_should():
    good = Chem.MolFromSmiles("CC(=O)Nc1ccc(O)cc1")
    assert passes(good)
    for smiles in (
        "O=C1C=CC(=O)C=C1",
        "CC1OC1C",
        "CSSC",
        "CCP(C)C",
        "CC(=O)[O-]",
        "BrCC",
        "C1CCCCCCC1",
    ):
        assert not passes(Chem.MolFromSmiles(smiles)), smiles
    assert len(MCF) == 22 and all(Chem.MolFromSmarts(smarts) for smarts in MCF)


def test_a_training_molecule_in_another_spelling_is_not_novel(tmp_path):
    file = tmp_path / "train.smi"
    file.write_text("SMILES\nOCC\nC[C@H](O)CC\nnonsense\n")
    known = hash_index_of(file)
    asked = [judge(text).plain for text in ("C(O)C", "CCC(O)C", "CCN")]
    assert known.holds(asked).tolist() == [True, True, False] and known.rejected == 1


def test_files_of_each_kind_say_the_same(tmp_path):
    import gzip

    (tmp_path / "a.smi").write_text("SMILES\nCC name\n\nCO\n")
    (tmp_path / "b.csv").write_text("id,SMILES\n1,CC\n2,\n3,CO\n")
    # one column: an empty molecule is an empty line
    (tmp_path / "c.csv").write_text("smiles\nCC\n\nCO\n")
    (tmp_path / "d.csv.gz").write_bytes(gzip.compress(b"SMILES,SPLIT\nCC,test\n,test\nCO,test\n"))
    (tmp_path / "e.smi").write_text("CC\r\n\r\nCO")
    for name in ("a.smi", "b.csv", "c.csv", "d.csv.gz", "e.smi"):
        assert list(read_strings(tmp_path / name)) == ["CC", "", "CO"], name
    assert list(read_strings(tmp_path / "a.smi", 1)) == ["CC"]


def test_files_that_cannot_be_read_say_so(tmp_path):
    (tmp_path / "a.csv").write_text("name,mass\nx,1\n")
    (tmp_path / "b.smi.gz").write_text("no gzip")
    (tmp_path / "c.smi").write_bytes(b"\xff\xfe\x00")
    for name in ("a.csv", "b.smi.gz", "c.smi", "missing.smi", "."):
        with pytest.raises(DataError, match=r"a\.csv:1|b\.smi|c\.smi|missing|folder"):
            list(read_strings(tmp_path / name))


def test_a_random_pick_is_of_the_file_and_of_the_seed(tmp_path):
    file = tmp_path / "many.smi"
    file.write_text("\n".join("C" * n for n in range(1, 101)))
    some = pick_strings(file, 10, 0)
    assert len(set(some)) == 10 and some == pick_strings(file, 10, 0) != pick_strings(file, 10, 1)
    assert sorted(pick_strings(file, 1000, 0)) == sorted(read_strings(file))
