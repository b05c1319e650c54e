"""Walks under GFN2-xTB: seeded, labelled as `sciforge label` labels them, as warm as asked,
refused where they cannot be.
"""

from importlib.util import find_spec

import numpy as np
import pytest

pytest.importorskip("rdkit", reason="RDKit makes the start")
pytest.importorskip("tblite", reason="tblite moves the atoms")

from sciforge.errors import ConfigError, DataError, MissingExtra
from sciforge.structures.labelling import xtb_dynamics
from sciforge.structures.labelling.quantum import LevelOfTheory, single_point
from sciforge.structures.labelling.xtb_dynamics import XtbDynamics


def test_labels_are_those_of_single_points():
    found = list(XtbDynamics(frames=2, temperatures_K=(300.0, 600.0), every=3, settle=5).of("CO"))
    assert len(found) == 4 and [s.name for s in found] == ["CO walker 0"] * 2 + ["CO walker 1"] * 2
    for structure in found:
        again = single_point(structure, LevelOfTheory.parse("gfn2-xtb"))
        assert structure.level == again.level and structure.energy_eV == pytest.approx(
            again.energy_eV, abs=1e-5
        )
        np.testing.assert_allclose(structure.forces_eV_A_N3, again.forces_eV_A_N3, atol=2e-4)
    assert np.abs(found[0].pos_A_N3 - found[1].pos_A_N3).max() > 1e-3


def test_the_seed_decides():
    first, again, other = (
        list(XtbDynamics(frames=1, temperatures_K=(300.0,), settle=5, seed=s).of("O"))[0]
        for s in (0, 0, 1)
    )
    np.testing.assert_allclose(first.pos_A_N3, again.pos_A_N3, atol=1e-6)
    assert np.abs(first.pos_A_N3 - other.pos_A_N3).max() > 1e-3


def test_a_hot_walk_spreads_more():
    """The spread of a bond's length grows with temperature, by about its square root."""
    spread = []
    for temperature in (100.0, 900.0):
        frames = XtbDynamics(
            frames=150, temperatures_K=(temperature,), every=7, settle=300, seed=3
        ).of("O")
        spread.append(np.std([np.linalg.norm(s.pos_A_N3[0] - s.pos_A_N3[1]) for s in frames]))
    assert 1.8 < spread[1] / spread[0] < 5.0


def test_ions_have_their_charge():
    (ion,) = XtbDynamics(frames=1, temperatures_K=(300.0,), settle=0).of("[OH-]")
    assert (ion.charge, ion.spin, len(ion)) == (-1, 1, 2)
    assert ion.energy_eV == pytest.approx(
        single_point(ion, LevelOfTheory.parse("gfn2-xtb")).energy_eV, abs=1e-5
    )


def test_what_cannot_walk_is_said(monkeypatch):
    with pytest.raises(DataError, match="no SMILES"):
        list(XtbDynamics().of("C(("))
    for wrong in (
        {"frames": 0},
        {"temperatures_K": ()},
        {"temperatures_K": (-1.0,)},
        {"timestep_fs": 0.0},
    ):
        with pytest.raises(ConfigError):
            XtbDynamics(**wrong)
    monkeypatch.setattr(
        xtb_dynamics, "find_spec", lambda name: None if name == "tblite" else find_spec(name)
    )
    with pytest.raises(MissingExtra, match="label"):
        next(XtbDynamics().of("O"))
