"""Frames of a DFT calculation: a potential that relaxes the molecule in ASE."""

import numpy as np
from ase.io import read
from ase.optimize import BFGS

import sciforge as sf

frames = read(sf.datasets.find("malonaldehyde-dft"), ":60")
model = sf.load("potential-mini").fit(frames[:50], seed=0)
scores = model.evaluate(frames[50:])
assert scores["force_mae_meV_A"] < 110, scores
table = model.predict(frames[50:])
assert table["forces_eV_A"].iloc[0].shape == (len(frames[50]), 3)
atoms = frames[0].copy()
atoms.calc = model.calculator()
BFGS(atoms, logfile=None).run(fmax=0.1, steps=60)
assert abs(atoms.get_forces()).max() < 0.2
features = model.embed(frames[:5])
assert features.shape[0] == 5 and np.isfinite(features).all()
