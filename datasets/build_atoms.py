"""Compute the bundled atoms data anew: `python datasets/build_atoms.py [--only xtb-small] [--work
runs/atoms-data]`.

xtb-small: the molecules of xtb-small.smi, 20 geometries each by `sciforge.atoms.Sample`, and 600
dimers of them, labelled with GFN2-xTB. malonaldehyde-dft: 330 frames of two Langevin walkers at 500
K with GFN2-xTB, labelled with PBE/def2-SVP, and the isolated atoms at that level.

As it was run: tblite 0.8.0, pyscf 2.14.0, rdkit 2026.9.1, ase 3.29.0, one thread. A label took 7 ms
with GFN2-xTB and about 6 s with PBE, a walker 2 to 4 minutes. Every step leaves a file in the work
folder, and a file that is there is not made again, so a stopped run goes on where it was.

xtb-small is rounded after labelling: positions to 1e-5 A, energies to 1e-6 eV, forces to 1e-4 eV/A.
The labels belong to the positions before rounding, so forces computed anew at the positions in the
file differ by 0.13 meV/A (RMS); the largest difference in a structure is 0.3 meV/A in the median,
and 2 meV/A in a violent one (forces near 100 eV/A).

The geometries of xtb-small come out the same for the same versions; molecular dynamics is chaotic,
so another machine gives other frames of malonaldehyde from the same distribution. Prints size and
SHA-256 of each file, and whether its card agrees.
"""

import argparse
import gzip
import hashlib
import json
import sys
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from sciforge.atoms import Label, Sample
from sciforge.structures.extxyz import write_extxyz
from sciforge.structures.labelling.geometries import dimer
from sciforge.structures.labelling.quantum import isolated_atoms
from sciforge.structures.readers import read_structures
from sciforge.structures.structure import Structure

HERE = Path(__file__).resolve().parent
DFT = "pbe/def2-svp"
# What bonds by hydrogen or is common: drawn for two dimers in three; otherwise any molecule of up
# to six heavy atoms.
PARTNERS = (
    "O N CO NC=O C=O CC(N)=O CC(=O)O OC=O CNC=O CN CS S C CC=O CC(C)=O CC#N C=C c1c[nH]cn1 C#N F Cl"
    " O=C=O CS(C)=O NC(N)=O COC"
).split()
WALKERS, FRAMES, BLOCK = (1, 2), 165, 15
EQUILIBRATION, EVERY = 10_000, 200  # steps of 0.5 fs


# Molecules, GFN2-xTB ------------------------------------------------------------------------------


def sample(work: Path) -> list[Structure]:
    """Return 20 geometries of each molecule of xtb-small.smi at 300 to 1200 K."""
    file, kelvin = work / "monomers.extxyz", (300.0, 600.0, 900.0, 1200.0)
    if not file.exists():
        smiles = HERE / "xtb-small.smi"
        Sample(
            smiles=smiles, out=file, conformers=4, per_conformer=5, temperature_K=kelvin, seed=1
        ).run()
    return list(read_structures(file))


def dimers(monomers: Iterable[Structure], count: int = 600) -> list[Structure]:
    """Return pairs of small molecules, turned at random, 2 to 4.5 A apart, every fourth 1.7 to
    2.6 A.
    """
    calm = [s for s in monomers if s.name.endswith(("300 K", "600 K"))]
    light = [s for s in calm if 0 < (s.numbers_N > 1).sum() <= 6]
    common = [s for s in light if s.name.split()[0] in PARTNERS]
    random, found = np.random.default_rng(5), []
    for i in range(count):
        first = (
            light[random.integers(len(light))] if i % 3 else common[random.integers(len(common))]
        )
        second = (
            common[random.integers(len(common))] if i % 2 else light[random.integers(len(light))]
        )
        apart = random.uniform(2.0, 4.5) if i % 4 else random.uniform(1.7, 2.6)
        found.append(dimer(first, second, float(apart), random))
    return found


def xtb_small(work: Path, workers: int) -> list[Structure]:
    """Return the labelled molecules and dimers, rounded; forces above 100 eV/A were rejected by
    the labeller.
    """
    bare, labelled = work / "xtb-small-bare.extxyz", work / "xtb-small.extxyz"
    if not labelled.exists():
        monomers = sample(work)
        write_extxyz(bare, [*monomers, *dimers(monomers)])
        Label(file=bare, out=labelled, method="gfn2-xtb", workers=workers).run()
    return [_rounded(structure) for structure in read_structures(labelled)]


def _rounded(structure: Structure) -> Structure:
    return replace(
        structure,
        pos_A_N3=np.round(structure.pos_A_N3, 5) + 0.0,  # no -0.0
        energy_eV=round(structure.energy_eV, 6),
        forces_eV_A_N3=np.round(structure.forces_eV_A_N3, 4) + 0.0,
        name=structure.name.replace(" K", "K").replace(" with ", " + "),
    )


# Malonaldehyde, PBE/def2-SVP ----------------------------------------------------------------------


def walk(walker: int, frames: int = FRAMES) -> list[Structure]:
    """Return a Langevin trajectory of malonaldehyde at 500 K on the GFN2-xTB surface, a frame every
    100 fs.

    It starts at the lowest of 30 conformers of the Z enol, which has the hydrogen bond.
    """
    from ase import Atoms, units
    from ase.md.langevin import Langevin
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
    from ase.optimize import BFGS
    from rdkit import Chem
    from rdkit.Chem import AllChem
    from tblite.ase import TBLite

    mol = Chem.AddHs(Chem.MolFromSmiles("O=C/C=C\\O"))
    AllChem.EmbedMultipleConfs(mol, 30, randomSeed=7)
    lowest, atoms = np.inf, Atoms()
    for conformer in mol.GetConformers():
        tried = Atoms([atom.GetSymbol() for atom in mol.GetAtoms()], conformer.GetPositions())
        tried.calc = TBLite(method="GFN2-xTB", verbosity=0)
        BFGS(tried, logfile=None).run(fmax=0.02, steps=300)
        if tried.get_potential_energy() < lowest - 1e-4:
            lowest, atoms = tried.get_potential_energy(), tried
    random = np.random.RandomState(walker)
    MaxwellBoltzmannDistribution(atoms, temperature_K=500, rng=random)
    # ASE 3.29 with fixcm=True runs nine atoms 35 % too hot.
    md = Langevin(
        atoms, 0.5 * units.fs, temperature_K=500, friction=0.02 / units.fs, rng=random, fixcm=False
    )
    md.run(EQUILIBRATION)
    found = []
    for frame in range(frames):
        md.run(EVERY)
        name, group = (
            f"malonaldehyde walker {walker} frame {frame}",
            f"walker{walker}_block{frame // BLOCK}",
        )
        found.append(
            Structure(atoms.numbers.copy(), np.round(atoms.positions, 8), name=name, group=group)
        )
    return found


def malonaldehyde_dft(work: Path, workers: int) -> list[Structure]:
    """Return the labelled frames, the walkers in turn, and the isolated H, C and O."""
    bare, labelled, isolated = (
        work / f"malonaldehyde-{name}" for name in ("bare.extxyz", "dft.extxyz", "atoms.json")
    )
    if not isolated.exists():
        isolated.write_text(json.dumps(isolated_atoms([1, 6, 8], DFT)))
    if not labelled.exists():
        if not bare.exists():
            write_extxyz(
                bare, [frame for pair in zip(*map(walk, WALKERS), strict=True) for frame in pair]
            )
        Label(file=bare, out=labelled, method=DFT, workers=workers).run()
    return [
        *read_structures(labelled),
        *(_atom(int(z), e) for z, e in json.loads(isolated.read_text()).items()),
    ]


def _atom(number: int, energy_eV: float) -> Structure:
    """A free atom as `isolated_atoms` computes it, in its ground-state multiplicity; no force
    acts on it.
    """
    from ase.data import chemical_symbols, ground_state_magnetic_moments

    spin, zeros = round(ground_state_magnetic_moments[number]) + 1, np.zeros((1, 3))
    labels = {"energy_eV": energy_eV, "forces_eV_A_N3": zeros, "level": DFT}
    return Structure(
        np.array([number]), zeros, spin=spin, name=f"isolated {chemical_symbols[number]}", **labels
    )


# Files --------------------------------------------------------------------------------------------


def packed(structures: Iterable[Structure], work: Path) -> bytes:
    """Return compressed extended XYZ; charge 0 and spin 1 go without saying. The same input and
    zlib, the same bytes.
    """
    plain = work / "plain.extxyz"
    write_extxyz(plain, structures)
    text = plain.read_text(encoding="utf-8").replace(" charge=0 spin=1 ", " ")
    plain.unlink()
    return gzip.compress(text.encode(), 9, mtime=0)


RECIPES: dict[str, Callable[[Path, int], list[Structure]]] = {
    "xtb-small": xtb_small,
    "malonaldehyde-dft": malonaldehyde_dft,
}


def main() -> int:
    """Write the files and compare them with their cards."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=list(RECIPES), help="this one, not both")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/atoms-data"), help="folder of what the steps leave"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that label")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    wrong = 0
    for name in [options.only] if options.only else RECIPES:
        data = packed(RECIPES[name](options.work, options.workers), options.work)
        digest, card = hashlib.sha256(data).hexdigest(), HERE / f"{name}.toml"
        same = card.exists() and tomllib.loads(card.read_text(encoding="utf-8"))["sha256"] == digest
        wrong += not same
        print(
            f"{name} {len(data)} {digest} {'as the card says' if same else 'NOT as the card says'}"
        )
        (HERE / f"{name}.extxyz.gz").write_bytes(data)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
