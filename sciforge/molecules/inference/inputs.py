"""Users' own molecules as records, and what a checkpoint says of them as columns of a table."""

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sciforge.core.domain import Inputs, Record
from sciforge.errors import DataError
from sciforge.molecules.chemistry.graph import canonical, graph_of_mol, mol_of_smiles
from sciforge.molecules.chemistry.salts import parent_part
from sciforge.molecules.data.codec import flags_of
from sciforge.molecules.data.in_memory import MoleculesInMemory, smiles_of_input
from sciforge.molecules.inference.recipes import RECIPES
from sciforge.molecules.objectives.properties import Properties
from sciforge.molecules.objectives.self_supervised import PredictDescriptors

if TYPE_CHECKING:
    import pandas as pd
    from rdkit import Chem

    from sciforge.core.training.model import Model

Z90 = 1.6449  # standard deviations that a 90 % interval reaches to either side


def record_of(mol: "Chem.Mol") -> dict[str, Any]:
    """Return what a store would hold of a molecule; raises DataError where its graph cannot be
    stored.

    >>> from rdkit import Chem
    >>> record_of(Chem.MolFromSmiles("OCC"))["smiles"]
    'CCO'
    """
    smiles, plain = canonical(mol)
    graph = graph_of_mol(plain)
    hydrogens, flags = flags_of(plain)
    bond = np.concatenate([graph.pair_M2, graph.order_M[:, None]], axis=1)
    return {
        "smiles": smiles,
        "atom": graph.atom_N,
        "bond": bond,
        "hydrogens": hydrogens,
        "flags": flags,
    }


class MoleculeInputs(Inputs):
    """SMILES, RDKit molecules, or rows of a table with a column `smiles`."""

    recipes = RECIPES

    def records(self, inputs: Sequence[Any]) -> list[Record]:
        """Return a record for each molecule; of salts and mixtures one part is taken, with a
        warning.

        Raises:
            DataError: an input is no molecule, or one that cannot be represented; names it by its
                place.
        """
        records, reduced, doubtful = [], [], []
        for place, value in enumerate(inputs):
            try:
                text = smiles_of_input(value)
                mol = mol_of_smiles(text)
                part, in_doubt = parent_part(mol)
                if part is not mol:
                    reduced.append(place)
                if in_doubt:
                    doubtful.append(place)
                records.append(record_of(part))
            except DataError as error:
                raise DataError(f"input {place}: {error}") from None
        if reduced:
            which = (
                f"{len(reduced)} of {len(inputs)} inputs have several parts (the first is input"
                f" {reduced[0]})"
            )
            doubt = (
                f", in doubt for {len(doubtful)} (the first is input {doubtful[0]})"
                if doubtful
                else ""
            )
            warnings.warn(
                f"{which}; counter-ions and solvents are taken off and the largest part is"
                f" used{doubt}",
                stacklevel=4,
            )
        return records

    def preparer(
        self,
        inputs: Sequence[Any],
        targets: "pd.DataFrame | None",
        *,
        split: Sequence[str] | None,
        seed: int,
        group: Sequence[Any] | None = None,
    ) -> MoleculesInMemory:
        """Return a preparer of labelled molecules; as `Inputs.preparer`."""
        return MoleculesInMemory.of(inputs, targets, split, seed, group)

    def columns(
        self, model: "Model", outputs: Mapping[str, np.ndarray]
    ) -> dict[str, Sequence[Any]]:
        """Return NAME, NAME_lower and NAME_upper (90 %) of each number; label and probability of a
        yes-or-no property.

        Where a checkpoint knows several properties, those of yes or no are NAME and
        NAME_probability. An encoder's descriptors come in their own units, a generator's
        log-likelihood in nats.
        """
        objective = model.objective
        if isinstance(objective, Properties):
            return property_columns(
                objective, outputs["value"], outputs["std"], np.full(len(objective.tasks), Z90)
            )
        if isinstance(objective, PredictDescriptors):
            values_NP = objective.unbend(torch.from_numpy(outputs["descriptors"])).numpy()
            return dict(zip(objective.names, values_NP.T, strict=True))
        return super().columns(model, outputs)

    def frame(self, records: Sequence[Record], meta: Mapping[str, Any]) -> "pd.DataFrame":
        """Return name, smiles and the labels of records."""
        import pandas as pd

        columns = {name: [record[name] for record in records] for name in ("name", "smiles")}
        for k, entry in enumerate(meta.get("labels", ())):
            columns[entry["name"]] = [float(record["label"][k]) for record in records]
        return pd.DataFrame(columns)


def property_columns(
    objective: Properties, value_NK: np.ndarray, std_NK: np.ndarray, width_K: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the columns of predicted properties.

    Args:
        objective: whose tasks they are.
        value_NK: numbers in their own unit, probabilities of yes.
        std_NK: standard deviations of the numbers.
        width_K: how many of them an interval reaches to either side.
    """
    columns: dict[str, np.ndarray] = {}
    for k, (name, yes_no) in enumerate(zip(objective.tasks, objective.yes_no, strict=True)):
        value_N = value_NK[:, k].astype(np.float64)
        if yes_no:
            single = len(objective.tasks) == 1
            label, probability = (
                ("label", "probability") if single else (name, f"{name}_probability")
            )
            columns |= {label: (value_N > 0.5).astype(int), probability: value_N}
        else:
            half_N = width_K[k] * std_NK[:, k]
            columns |= {
                name: value_N,
                f"{name}_lower": value_N - half_N,
                f"{name}_upper": value_N + half_N,
            }
    return columns
