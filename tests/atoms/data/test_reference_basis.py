"""Reference energies: exact where the data determine them, the prior where they do not, honest
about which.
"""

import numpy as np
import pytest

from sciforge.atoms.data.reference_basis import fit_reference
from sciforge.errors import DataError

TRUE = {1: -13.57, 6: -1025.28, 8: -2035.57}


def compositions(rows):
    counts = np.zeros((len(rows), 119))
    for i, row in enumerate(rows):
        for z, n in row.items():
            counts[i, z] = n
    return counts


def energies(counts, table=TRUE):
    return sum(counts[:, z] * e for z, e in table.items())


def test_full_rank_gives_back_the_elements_to_a_micro_ev():
    counts = compositions([{1: 4, 6: 1}, {1: 2, 8: 1}, {1: 6, 6: 2, 8: 1}, {6: 1, 8: 2}, {1: 2}])
    found = fit_reference(counts, energies(counts))
    assert found.rank == found.num_elements == 3 and found.source == "ridge" and found.extensive
    assert (
        all(abs(found.energies[z] - e) < 1e-3 for z, e in TRUE.items())
        and found.residual_meV_atom < 0.1
    )
    assert abs(found.total_eV(np.array([1, 1, 8])) - (2 * TRUE[1] + TRUE[8])) < 1e-3


@pytest.mark.parametrize("isolated", [None, TRUE])
def test_one_molecule_has_rank_one_and_stays_near_the_prior(isolated):
    counts = compositions([{1: 6, 6: 2, 8: 1}] * 50)
    total = energies(counts) - 40 + np.random.default_rng(0).normal(0, 0.2, 50)
    found = fit_reference(counts, total, isolated)
    assert found.rank == 1 and found.num_elements == 3
    assert abs(found.total_eV(np.repeat([1, 6, 8], [6, 2, 1])) - total.mean()) < 1e-3
    assert found.residual_meV_atom == pytest.approx(total.std() / 9 * 1000, rel=1e-3)
    if isolated:
        assert found.source == "isolated" and all(
            abs(found.energies[z] - e) < 8 for z, e in TRUE.items()
        )
    else:
        assert np.ptp(list(found.energies.values())) < 1e-6


def test_elements_without_an_isolated_atom_lean_on_what_is_left():
    counts = compositions([{1: 6, 6: 2, 8: 1}])
    found = fit_reference(counts, energies(counts), {1: TRUE[1]})
    assert found.energies[1] == pytest.approx(TRUE[1], abs=1e-6)
    assert found.energies[6] == pytest.approx((2 * TRUE[6] + TRUE[8]) / 3, abs=1e-3)


def test_energies_per_atom_are_not_extensive():
    counts = compositions([{1: h, 6: c, 8: o} for h in (2, 4, 8) for c in (1, 3) for o in (1, 2)])
    assert fit_reference(counts, energies(counts)).extensive
    wrong = fit_reference(counts, energies(counts) / counts.sum(1))
    assert not wrong.extensive and "NOT extensive" in wrong.report("pbe")


def test_the_report_is_one_line():
    counts = compositions([{1: 2, 8: 1}] * 3)
    line = fit_reference(counts, energies(counts)).report("pbe")
    assert (
        line.startswith("reference energies of pbe [eV]: H ")
        and "rank 1 of 2" in line
        and "\n" not in line
    )


@pytest.mark.parametrize(
    ("counts", "total"),
    [(np.zeros((0, 119)), []), (np.zeros((1, 119)), [1.0]), (np.ones((1, 119)), [np.nan])],
)
def test_bad_input(counts, total):
    with pytest.raises(DataError):
        fit_reference(counts, np.array(total))


def test_an_element_without_reference_is_an_error():
    counts = compositions([{1: 2}])
    with pytest.raises(DataError, match="no reference energy of element 6"):
        fit_reference(counts, np.array([-31.0])).total_eV(np.array([6]))
