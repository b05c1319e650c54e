"""A table of measured molecules, and new ones around a scaffold."""

import pandas as pd
from rdkit import Chem

import sciforge as sf

data = pd.read_csv(sf.datasets.find("solubility"))
model = sf.load("molecules-encoder-mini").fit(
    data, input="smiles", target="logS", labels=100, seed=0
)
table = model.predict(pd.Series(["CCO", "c1ccccc1", "C[C@H](N)C(=O)O"], index=[5, 3, 9]))
assert list(table.index) == [5, 3, 9] and {"logS", "logS_lower", "logS_upper"} <= set(table.columns)
molecules = sf.load("molecules-mini").generate(
    50, scaffold="c1ccc2[nH]ccc2c1", atoms=(12, 28), seed=1
)
core = Chem.MolFromSmarts("c1ccc2[n]ccc2c1")
assert len(molecules) == 50 and all(mol.HasSubstructMatch(core) for mol in molecules)
assert isinstance(molecules[0], Chem.Mol)
molecules.to_sdf("new.sdf")
assert sum(mol is not None for mol in Chem.SDMolSupplier("new.sdf")) == 50
assert len(molecules.to_pandas()) == 50 and molecules.plot() is not None
