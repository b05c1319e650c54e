"""The molecules section of `sciforge demo`: drawn under constraints, and few labels of a
property beside rivals.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciforge.core.files.tables import Section, Table
from sciforge.core.training.run import Hardware
from sciforge.molecules.chemistry.graph import mol_of_smiles
from sciforge.molecules.generation.constraints import Constraints, parse_formula

if TYPE_CHECKING:
    from rdkit import Chem

SHOWN = 4
INDOLE = "c1ccc2[nH]ccc2c1"
REQUESTS = {
    "the formula of aspirin, C9H8O4": Constraints(formula="C9H8O4"),
    "grown from indole, at most 24 atoms": Constraints(scaffold=INDOLE, atoms=(9, 24)),
    "3 or 4 rings, of 5 or 6 atoms each": Constraints(rings=(3, 4), ring_sizes=(5, 6)),
    "net charge -1, 10 to 20 atoms": Constraints(charge=-1, atoms=(10, 20)),
    "no carbonyl, no N-N": Constraints(forbidden=("C=O", "NN")),
}
GENERATION = (
    "molecules-mini builds molecules atom by atom under a mask that knows the valence rules and, at"
    " each step, whether the request can still be met: nothing is rejected or repaired, and RDKit"
    " sees the molecules only when they are finished. The last column is RDKit's verdict on each"
    " request."
)
PROPERTY = (
    "Solubility (Huuskonen) from few labels; the test molecules have other scaffolds, and all"
    " methods see the same labels, seed by seed. descriptor_forest is the classical rival: extra"
    " trees on RDKit's descriptors. Much of the gain comes from the head, which the untrained"
    " network shares; on bioactivity a forest on fingerprints is better, see the benchmarks."
)


def demo(folder: Path, find: Callable[[str], Path], full: bool = False) -> Section:
    """Draw molecules under constraints, and learn a solubility from few labels.

    Args:
        folder: for everything that is made.
        find: gives the path of bundled data by name.
        full: more molecules, numbers of labels and seeds, and a comparison with real molecules;
            takes minutes.
    """
    import sciforge as sf

    generator = sf.load(find("molecules-mini"), device="cpu")
    count = 100 if full else 50
    drawn = {
        text: generator.generate(count, seed=0, **vars(request))
        for text, request in REQUESTS.items()
    }
    curve = _curve(folder, find, full)
    tables = [_verdicts(drawn), curve.table()]
    if full:
        tables.insert(1, _scored(folder, find, generator.generate(1000, seed=1)))
    pictures = (
        (
            _grid(drawn, folder / "molecules.png"),
            "Four molecules of each request, in the order of the table.",
        ),
        (
            curve.save(folder / "curve.png"),
            "Error against the number of labels, log10(mol/l), with 95 % intervals.",
        ),
    )
    title = "Molecules: valid by construction, and a property from few labels"
    return Section(title, (GENERATION, PROPERTY), tuple(tables), pictures)


def _curve(folder: Path, find: Callable[[str], Path], full: bool) -> Any:
    import sciforge as sf
    from sciforge.experiments.methods import PROBE

    place = folder / "solubility"
    molecules = sf.molecules.Molecules(files=(find("solubility"),), labels=("logS",))
    task = (
        sf.Dataset.open(place) if place.exists() else sf.prepare(molecules, place, on_error="skip")
    )
    return sf.label_efficiency(
        task,
        init=find("molecules-encoder-mini"),
        objective=sf.molecules.Properties(),
        sizes=(50, 100, 200) if full else (50, 100),
        seeds=5 if full else 3,
        methods=("pretrained", "untrained", "descriptor_forest"),
        recipe=PROBE,
        hardware=Hardware(threads=1),
        out=folder / "curve",
    )


def _verdicts(drawn: Mapping[str, Any]) -> Table:
    """Return a row for each request: molecules drawn, different ones, and those that RDKit finds
    valid and as requested.
    """
    rows = []
    for text, mols in drawn.items():
        good = sum(kept(smiles, REQUESTS[text]) for smiles in mols.smiles())
        rows.append((text, str(len(mols)), str(len(set(mols.smiles()))), f"{good} of {len(mols)}"))
    return Table(("request", "drawn", "different", "valid and as requested"), tuple(rows))


def kept(smiles: str, constraints: Constraints) -> bool:
    """Return RDKit's verdict: valid, in one piece, no radical, and every constraint kept.

    >>> kept("CC(=O)Oc1ccccc1C(=O)O", Constraints(formula="C9H8O4"))
    True
    >>> kept("CCO", Constraints(rings=(1, 2)))
    False
    """
    from rdkit import Chem

    mol = Chem.MolFromSmiles(smiles)
    if (
        mol is None
        or not smiles
        or "." in smiles
        or any(a.GetNumRadicalElectrons() for a in mol.GetAtoms())
    ):
        return False
    return Chem.GetFormalCharge(mol) == constraints.charge and all(_checks(mol, constraints))


def _checks(mol: "Chem.Mol", constraints: Constraints) -> Iterator[bool]:
    from rdkit import Chem
    from rdkit.Chem.rdMolDescriptors import CalcMolFormula

    if constraints.formula is None:
        yield constraints.atoms[0] <= mol.GetNumAtoms() <= constraints.atoms[1]
    else:
        formula = CalcMolFormula(mol).split("+")[0].split("-")[0]
        yield parse_formula(formula) == parse_formula(constraints.formula)
    # independent rings: RDKit lists three rings of a bicyclo[2.2.2]octane, of which two suffice
    yield constraints.rings[0] <= mol.GetNumBonds() - mol.GetNumAtoms() + 1 <= constraints.rings[1]
    low, high = constraints.ring_sizes
    yield all(low <= len(ring) <= high for ring in mol.GetRingInfo().AtomRings())
    if constraints.scaffold is not None:
        yield mol.HasSubstructMatch(
            Chem.DeleteSubstructs(mol_of_smiles(constraints.scaffold), Chem.MolFromSmarts("[#0]"))
        )
    for part in constraints.forbidden:
        yield not _holds(mol, Chem.MolFromSmiles(part))


def _holds(mol: "Chem.Mol", part: "Chem.Mol") -> bool:
    """Return whether a molecule holds a part with these charges; RDKit alone lets an uncharged
    query match any charge.
    """
    charges = [atom.GetFormalCharge() for atom in part.GetAtoms()]
    matches = mol.GetSubstructMatches(part, uniquify=False)
    return any(
        [mol.GetAtomWithIdx(i).GetFormalCharge() for i in match] == charges for match in matches
    )


def _grid(drawn: Mapping[str, Any], out: Path) -> Path:
    """Draw some molecules of each request, two requests a row."""
    from rdkit.Chem import Draw

    mols = [mol for request in drawn.values() for mol in request[:SHOWN]]
    Draw.MolsToGridImage(mols, molsPerRow=2 * SHOWN, subImgSize=(190, 150)).save(out)
    return out


def _scored(folder: Path, find: Callable[[str], Path], mols: Any) -> Table:
    """Score molecules against the bundled part of MOSES."""
    import pandas as pd

    from sciforge.molecules.evaluation.score import Score, table_of

    sample = pd.read_csv(find("moses-sample"))
    files = {}
    for split, rows in sample.groupby("split"):
        files[split] = folder / f"moses-{split}.smi"
        files[split].write_text("".join(f"{smiles}\n" for smiles in rows["smiles"]))
    own = mols.to_smiles(folder / "molecules-mini.smi")
    import sciforge as sf

    score = Score(
        file=own,
        reference=files["test"],
        training=files["train"],
        fcd=False,
        cache=folder / "cache",
    )
    return table_of({"molecules-mini": sf.score(score).report})
