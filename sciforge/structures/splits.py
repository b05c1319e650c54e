"""Which structure goes to training, development or test: by molecule, by blocks of time, at random,
or as given.

A molecule is its skeleton: the graph of its heavy atoms by element, without bond orders, hydrogens
and charges. It is the same from a SMILES and from any thermal geometry, also while a proton moves,
where bond orders (and with them an InChIKey) are ambiguous; tautomers, and a molecule and its ions,
therefore share a split.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from sciforge.core.data.store import SPLITS
from sciforge.errors import ConfigError
from sciforge.structures.structure import Structure

TRAIN, DEV, TEST = (SPLITS.index(name) for name in ("train", "validation", "test"))
DROPPED = -1
FEWEST_MOLECULES = 8  # below it `auto` cuts by time
BONDED = 1.3  # times the sum of covalent radii; a C-C bond at 600 K stays below 1.2
LARGEST_DENSE = 1500  # atoms for which all distances are made at once


@lru_cache(1)
def _radii() -> np.ndarray:
    from ase.data import covalent_radii

    return np.array(covalent_radii)


def _ratios(structure: Structure, keep: np.ndarray) -> np.ndarray:
    """Return the distances over the sums of covalent radii [n, n] of some atoms, infinite on the
    diagonal.
    """
    pos, radius = structure.pos_A_N3[keep], _radii()[structure.numbers_N[keep]]
    gram = pos - pos.mean(0) if len(pos) else pos
    squares = (gram**2).sum(1)
    apart = np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * gram @ gram.T, 0))
    np.fill_diagonal(apart, np.inf)
    return apart / (radius[:, None] + radius[None, :])


def nearest_bond(structure: Structure) -> float | None:
    """Return the median over atoms of the nearest distance in bond lengths; None for a crystal,
    a giant, an atom or a pair.
    """
    if structure.pbc_3.any() or not 2 < len(structure) <= LARGEST_DENSE:
        return None
    return float(np.median(_ratios(structure, np.arange(len(structure))).min(1)))


def formula(numbers_N: np.ndarray) -> str:
    """Return the sorted formula.

    >>> formula(np.array([8, 1, 1]))
    'H2O'
    """
    from ase.data import chemical_symbols

    kinds, counts = np.unique(numbers_N, return_counts=True)
    named = sorted((chemical_symbols[z], c) for z, c in zip(kinds, counts, strict=True))
    return "".join(symbol + (str(count) if count > 1 else "") for symbol, count in named)


@lru_cache(100_000)
def _skeleton(elements: tuple[int, ...], bonds: tuple[tuple[int, int], ...]) -> str:
    from rdkit import Chem

    mol = Chem.RWMol()
    for element in elements:
        atom = Chem.Atom(element)
        atom.SetNoImplicit(True)
        mol.AddAtom(atom)
    for a, b in bonds:
        mol.AddBond(a, b, Chem.BondType.SINGLE)
    mol.UpdatePropertyCache(strict=False)
    return Chem.MolToSmiles(mol).replace("[", "").replace("]", "")


@lru_cache(100_000)
def skeleton_of_smiles(smiles: str) -> str | None:
    """Return the skeleton of a SMILES; None where it is none, or has no heavy atom.

    >>> skeleton_of_smiles("[CH3:1][CH2:2][OH:3]") == skeleton_of_smiles("CC=O")
    True
    """
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles, sanitize=False)
    if mol is None:
        return None
    heavy = [atom.GetIdx() for atom in mol.GetAtoms() if atom.GetAtomicNum() > 1]
    place = {index: i for i, index in enumerate(heavy)}
    ends = ((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in mol.GetBonds())
    bonds = sorted(
        (min(place[a], place[b]), max(place[a], place[b]))
        for a, b in ends
        if a in place and b in place
    )
    elements = tuple(mol.GetAtomWithIdx(i).GetAtomicNum() for i in heavy)
    return _skeleton(elements, tuple(bonds)) if heavy else None


def molecule_key(structure: Structure) -> str:
    """Return what no split may tear apart: the structure's own group, its skeleton, or the formula
    of a crystal.

    A group that is a SMILES counts by its skeleton. Crystals go by their reduced formula; giants
    and hydrogen alone by the whole one.
    """
    if structure.group:
        return skeleton_of_smiles(structure.group) or structure.group
    heavy = np.flatnonzero(structure.numbers_N > 1)
    if structure.pbc_3.any():
        kinds, counts = np.unique(structure.numbers_N, return_counts=True)
        return formula(np.repeat(kinds, counts // np.gcd.reduce(counts)))
    if not 0 < len(heavy) <= LARGEST_DENSE:
        return formula(structure.numbers_N)
    first, second = np.nonzero(np.triu(_ratios(structure, heavy) < BONDED))
    bonds = tuple(zip(first.tolist(), second.tolist(), strict=True))
    return _skeleton(tuple(structure.numbers_N[heavy].tolist()), bonds)


def chance(text: str, seed: int) -> float:
    """Return a number in [0, 1) that depends on the text and the seed alone, the same on every
    machine.
    """
    digest = hashlib.blake2b(f"{seed}:{text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def split_groups(
    groups: Sequence[str], validation_share: float, test_share: float, seed: int
) -> dict[str, int]:
    """Return group -> split, by a hash: a molecule keeps its split whatever else is in the files.

    A split that was asked for and got none takes the group nearest to it, so it is never empty.

    Raises:
        ConfigError: fewer groups than splits.
    """
    if len(groups) < 1 + (validation_share > 0) + (test_share > 0):
        raise ConfigError(
            f"{len(groups)} molecule(s) cannot fill the splits; use --split time, or name files to"
            " test on"
        )
    place = {group: chance(group, seed) for group in groups}
    ordered = sorted(place, key=place.__getitem__)
    found = dict.fromkeys(groups, TRAIN)
    tests = [g for g in ordered if place[g] < test_share] or ordered[: int(test_share > 0)]
    rest = [g for g in ordered if g not in set(tests)]
    devs = [g for g in rest if place[g] < test_share + validation_share] or rest[
        : int(validation_share > 0)
    ]
    if len(devs) == len(rest):
        devs = devs[:-1]
    if not devs and validation_share > 0:
        devs, tests = tests[-1:], tests[:-1]
    return found | dict.fromkeys(tests, TEST) | dict.fromkeys(devs, DEV)


def memory_length(energies: np.ndarray) -> int:
    """Return after how many frames the energy has forgotten itself (autocorrelation below 1/e);
    1 without energies.
    """
    values = energies[np.isfinite(energies)]
    if len(values) < 20 or np.ptp(values) == 0:
        return 1
    centred = values - values.mean()
    spectrum = np.abs(np.fft.rfft(centred, 2 * len(centred))) ** 2
    correlation = np.fft.irfft(spectrum)[: len(centred)]
    below = np.flatnonzero(correlation < correlation[0] / np.e)
    return max(1, int(below[0]) if len(below) else len(values))


def split_time(
    counts: Sequence[int],
    block: int,
    gaps: Sequence[int],
    validation_share: float,
    test_share: float,
    seed: int,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return, for each trajectory, the split and the number of the block of every frame.

    Whole blocks go to a split; where two neighbours differ, frames on the training side of the
    border are DROPPED.

    Args:
        counts: frames of each trajectory.
        block: frames of a block; 0 cuts each trajectory in 20, or fewer where the gaps need room.
        gaps: frames to drop at a border, for each trajectory.
        validation_share: of the blocks.
        test_share: of the blocks.
        seed: of the choice of blocks.

    Raises:
        ConfigError: too few blocks for the splits asked for.
    """
    sizes = [
        block or max(1, -(-count // 20), min(3 * gap, count // 5))
        for count, gap in zip(counts, gaps, strict=True)
    ]
    ends = np.cumsum([0] + [-(-count // size) for count, size in zip(counts, sizes, strict=True)])
    number = int(ends[-1])
    tests = max(round(test_share * number), int(test_share > 0))
    devs = max(round(validation_share * number), int(validation_share > 0))
    if number and tests + devs >= number:
        raise ConfigError(
            f"{number} block(s) of {max(sizes)} frames cannot fill the splits; "
            "choose a smaller --block, or --validation-share 0 --test-share 0"
        )
    chosen = np.full(number, TRAIN)
    order = np.random.default_rng([seed, 0x71E]).permutation(number)
    chosen[order[:tests]], chosen[order[tests : tests + devs]] = TEST, DEV
    numbers = [e + np.arange(c) // s for e, c, s in zip(ends.tolist(), counts, sizes, strict=False)]
    return [
        _with_gaps(chosen[blocks], gap) for blocks, gap in zip(numbers, gaps, strict=True)
    ], numbers


def _with_gaps(split: np.ndarray, gap: int) -> np.ndarray:
    """Mark as DROPPED the frames nearer than `gap` to a frame of another split, on the training
    side where one is.
    """
    kept = split.copy()
    for border in (np.flatnonzero(np.diff(split)) + 1).tolist():
        before = split[border - 1] == TRAIN or split[border] != TRAIN
        kept[max(0, border - gap) : border] = (
            DROPPED if before else kept[max(0, border - gap) : border]
        )
        kept[border : border + gap] = kept[border : border + gap] if before else DROPPED
    return kept
