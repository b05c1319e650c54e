"""The molecules section of `sciforge demo`: drawn under constraints, measured, and few labels of a property."""

import csv
import gzip
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sciforge.core.data.store import Store, prepare
from sciforge.core.files.tables import Section, Table
from sciforge.core.training.model import Model
from sciforge.core.training.run import Hardware
from sciforge.experiments.label_efficiency.result import LabelEfficiencyResult
from sciforge.experiments.label_efficiency.run import measure
from sciforge.experiments.label_efficiency.spec import LabelEfficiency
from sciforge.molecules.chemistry.graph import mol_of_smiles
from sciforge.molecules.data.prepare import Molecules
from sciforge.molecules.evaluation.score import Score, table_of
from sciforge.molecules.generation.constraints import Constraints, parse_formula
from sciforge.molecules.generation.sampler import Sampling
from sciforge.molecules.generation.unmasked_validity import unmasked_validity
from sciforge.molecules.inference.generation import generate
from sciforge.molecules.objectives.properties import Properties

if TYPE_CHECKING:
    from rdkit import Chem

NUM, SHOWN = 400, 4
SIZES, SEEDS = (50, 200), 3
INDOLE = "c1ccc2[nH]ccc2c1"
ASKED: tuple[tuple[str, Constraints], ...] = (
    ("nothing but valence", Constraints()),
    ("the formula of aspirin, C9H8O4", Constraints(formula="C9H8O4")),
    ("the formula of caffeine, C8H10N4O2", Constraints(formula="C8H10N4O2")),
    ("grown from indole, at most 24 atoms", Constraints(scaffold=INDOLE, atoms=(9, 24))),
    ("grown from 4-pyridyl at one place", Constraints(scaffold="*c1ccncc1", atoms=(6, 24))),
    ("3 or 4 rings, of 5 or 6 atoms each", Constraints(rings=(3, 4), ring_sizes=(5, 6))),
    ("net charge -1, 10 to 20 atoms", Constraints(charge=-1, atoms=(10, 20))),
    ("no carbonyl, no N-N", Constraints(forbidden=("C=O", "NN"))),
)
WHAT = (
    "molecules-mini grows molecules atom by atom under a mask that knows the valence rules and, at each step, whether what was asked "
    "for can still be reached: nothing is rejected or repaired, and RDKit sees the molecules only when they are finished. The last "
    "column is RDKit's judgement of each constraint."
)


def demo(folder: Path, find: Callable[[str], Path], full: bool = False) -> Section:
    """Draw molecules under constraints, score plain ones against real ones, and learn a solubility from few labels.

    Args:
        folder: for everything that is made.
        find: gives the path of bundled data by name.
        full: more numbers of labels and seeds; takes minutes.
    """
    model = Model.load(find("molecules-mini"), "cpu")
    model.network.eval()
    drawn = {words: _draw(model, asked) for words, asked in ASKED}
    picture = _grid(drawn, folder / "molecules.png")
    learnt = unmasked_validity(model.network, 200, Sampling(), None)
    asked = _table(drawn, learnt)
    scored = _scored(drawn[ASKED[0][0]] + _draw(model, Constraints(), NUM, seed=1), folder, find("moses-sample"))
    curve = _curve(folder, find("solubility"), find("molecules-encoder-mini"))
    pictures = (
        (picture, "Four molecules of each request, in the order of the table."),
        (
            curve.save(folder / "curve.png"),
            "Error against the number of labels, with 95 % intervals.",
        ),
    )
    few = "Solubility (Huuskonen), test molecules of other scaffolds, few labels; the rivals see the same molecules, seed by seed."
    return Section(
        "Molecules: valid by construction, and a property from few labels",
        (WHAT, few),
        (asked, scored, curve.table()),
        pictures,
    )


def _draw(model: Model, constraints: Constraints, num: int = 100, seed: int = 0) -> list[str]:
    return generate(model, num, seed=seed, **vars(constraints)).smiles()


def kept(smiles: str, constraints: Constraints) -> bool:
    """Return RDKit's judgement: valid, in one piece, no radical, and every constraint kept.

    >>> kept("CC(=O)Oc1ccccc1C(=O)O", Constraints(formula="C9H8O4")), kept("CCO", Constraints(rings=(1, 2)))
    (True, False)
    """
    from rdkit import Chem
    from rdkit.Chem.rdMolDescriptors import CalcMolFormula

    mol = Chem.MolFromSmiles(smiles)
    if mol is None or "." in smiles or not smiles or any(a.GetNumRadicalElectrons() for a in mol.GetAtoms()):
        return False
    rings = [len(ring) for ring in mol.GetRingInfo().AtomRings()]
    good = Chem.GetFormalCharge(mol) == constraints.charge
    independent = (
        mol.GetNumBonds() - mol.GetNumAtoms() + 1
    )  # RDKit lists three rings of a bicyclo[2.2.2]octane, of which two suffice
    good &= constraints.rings[0] <= independent <= constraints.rings[1]
    good &= all(constraints.ring_sizes[0] <= size <= constraints.ring_sizes[1] for size in rings)
    if constraints.formula is None:
        good &= constraints.atoms[0] <= mol.GetNumAtoms() <= constraints.atoms[1]
    else:
        good &= parse_formula(CalcMolFormula(mol).split("+")[0].split("-")[0]) == parse_formula(constraints.formula)
    if constraints.scaffold is not None:
        bare = Chem.DeleteSubstructs(mol_of_smiles(constraints.scaffold), Chem.MolFromSmarts("[#0]"))
        good &= mol.HasSubstructMatch(bare)
    return bool(good) and not any(_holds(mol, Chem.MolFromSmiles(text)) for text in constraints.forbidden)


def _holds(mol: "Chem.Mol", part: "Chem.Mol") -> bool:
    """Return whether a molecule holds a part with these charges; RDKit alone lets an uncharged query match any charge."""
    charges = [atom.GetFormalCharge() for atom in part.GetAtoms()]
    matches = mol.GetSubstructMatches(part, uniquify=False)
    return any([mol.GetAtomWithIdx(i).GetFormalCharge() for i in match] == charges for match in matches)


def _table(drawn: dict[str, list[str]], learnt: float) -> Table:
    rows = []
    for words, asked in ASKED:
        found = drawn[words]
        good = sum(kept(smiles, asked) for smiles in found)
        rows.append((words, str(len(found)), str(len(set(found))), f"{good} of {len(found)}"))
    note = (
        f"Drawn without the mask, {100 * learnt:.0f} % of 200 molecules are valid: so much is learnt, the rest is law."
    )
    return Table(("asked for", "drawn", "different", "valid and as asked"), tuple(rows), note)


def _grid(drawn: dict[str, list[str]], out: Path) -> Path:
    """Draw some molecules of each request."""
    from rdkit import Chem
    from rdkit.Chem import Draw

    chosen = [smiles for words, _ in ASKED for smiles in drawn[words][:SHOWN]]
    mols = [Chem.MolFromSmiles(smiles) for smiles in chosen]
    options = {"molsPerRow": 2 * SHOWN, "subImgSize": (190, 150)}
    Draw.MolsToGridImage(mols, **options).save(out)
    return out


def _scored(smiles: Sequence[str], folder: Path, sample: Path) -> Table:
    """Score molecules against the bundled part of MOSES."""
    with gzip.open(sample, "rt") as handle:
        rows = list(csv.DictReader(handle))
    files = {}
    for split in ("train", "test"):
        files[split] = folder / f"moses-{split}.smi"
        files[split].write_text("".join(f"{row['smiles']}\n" for row in rows if row["split"] == split))
    own = folder / "molecules-mini.smi"
    own.write_text("".join(f"{text}\n" for text in smiles))
    score = Score(
        file=own,
        reference=files["test"],
        training=files["train"],
        fcd=False,
        cache=folder / "cache",
    )
    return table_of({"molecules-mini": score.run().report})


def _curve(folder: Path, data: Path, base: Path) -> LabelEfficiencyResult:
    place = folder / "solubility"
    store = (
        Store.open(place)
        if place.exists()
        else prepare(Molecules(files=(data,), labels=("logS",)), place, on_error="skip")
    )
    spec = LabelEfficiency(
        data=store.path, out=folder / "curve", init=base, objective=Properties(), sizes=SIZES, seeds=SEEDS,
        methods=("pretrained", "untrained", "descriptor_forest"), hardware=Hardware(threads=1),
    )  # fmt: skip
    return measure(spec)
