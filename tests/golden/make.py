"""Write a golden checkpoint of the present format; run once for each new format, never to mend a failing test.

python tests/golden/make.py
"""

import json
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from sciforge.core.checkpoint import FORMAT
from sciforge.core.loop import train
from sciforge.core.predictor import Predictor
from sciforge.core.run import Hardware

TESTS = Path(__file__).resolve().parents[1]
SEQUENCES = ["TCACTTTGCGATGCGCGTTAGACTTTCACCTACGGATTCG", "ACGT" * 10, "TATAATG" * 5 + "ACGTA", "GCCGGCA" * 5 + "ACGTA"]


def main() -> None:
    """Train the tiny genome runs in float32 and keep the second with its predictions."""
    sys.path.insert(0, str(TESTS))
    from tiny_runs import load_file

    hardware = Hardware(device="cpu", precision="float32", threads=1)
    out = TESTS / "golden" / f"genomes-v{FORMAT}"
    shutil.rmtree(out, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # short relative paths in the recorded run
        _, pretraining, finetuning = load_file(TESTS / "genomes" / "contract.py").tiny(Path("."))
        train(replace(pretraining, hardware=hardware))
        checkpoint = train(replace(finetuning, hardware=hardware))
        records = [{"bases": np.array(["ACGT".index(base) for base in text], np.uint8)} for text in SEQUENCES]
        predicted = Predictor.load(checkpoint.path, device="cpu").outputs(records)
        shutil.copytree(checkpoint.path, out / "checkpoint")
        os.chdir(TESTS)
    metrics = {name: values.astype(float).tolist() for name, values in predicted.items()}
    (out / "expected.json").write_text(json.dumps({"sequences": SEQUENCES, **metrics}, indent=1) + "\n")


if __name__ == "__main__":
    main()
