"""What both benchmarks share: frames for the peers, their interpreters and the processes that
run them (needs numpy).
"""

import argparse
import gzip
import json
import os
import re
import shutil
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SHARED = Path(os.environ.get("SCIFORGE_SHARED", HERE.parents[2] / "shared"))
ATOMS = SHARED / "data" / "atoms"
NUMBERS = {"H": 1, "C": 6, "N": 7, "O": 8}
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


@dataclass(frozen=True)
class Frame:
    numbers: np.ndarray
    positions: np.ndarray
    forces: np.ndarray
    energy: float
    cell: np.ndarray
    pbc: np.ndarray


def read_xyz(path: Path) -> list[Frame]:
    """Molecules of an extended XYZ file with species, positions and forces in its columns; its
    cells are left out.
    """
    with gzip.open(path, "rt") as opened:
        lines = opened.read().splitlines()
    frames, at = [], 0
    while at < len(lines):
        count = int(lines[at])
        frames.append(
            _molecule(lines[at + 1], [line.split() for line in lines[at + 2 : at + 2 + count]])
        )
        at += 2 + count
    return frames


def _molecule(comment: str, rows: list[list[str]]) -> Frame:
    energy = float(re.search(r"(?:^|\s)energy=(\S+)", comment)[1])
    values = np.array([row[1:7] for row in rows], float)
    numbers = np.array([NUMBERS[row[0]] for row in rows])
    return Frame(numbers, values[:, :3], values[:, 3:], energy, np.zeros((3, 3)), np.zeros(3, bool))


def write_frames(path: Path, frames: list[Frame]) -> str:
    """The .npz that README.md describes; returns its path as text."""
    np.savez(
        path,
        counts=[len(frame.numbers) for frame in frames],
        numbers=np.concatenate([frame.numbers for frame in frames]),
        positions=np.concatenate([frame.positions for frame in frames]),
        forces=np.concatenate([frame.forces for frame in frames]),
        energy=[frame.energy for frame in frames],
        cell=[frame.cell for frame in frames],
        pbc=[frame.pbc for frame in frames],
    )
    return str(path)


def water_box(per_side: int = 4, density: float = 0.997) -> Frame:
    """Water molecules on a cubic grid, turned at random with a fixed seed; density in g/cm^3,
    forces unknown (zero).
    """
    rng = np.random.default_rng(0)
    spacing = (18.015 / (0.602214 * density)) ** (1 / 3)
    half = np.radians(104.52) / 2
    bonds = 0.9572 * np.array(
        [[0, 0, 0], [np.sin(half), np.cos(half), 0], [-np.sin(half), np.cos(half), 0]]
    )
    centres = spacing * (
        np.stack(np.meshgrid(*[np.arange(per_side)] * 3, indexing="ij"), -1).reshape(-1, 3) + 0.5
    )
    positions = np.concatenate([centre + bonds @ _rotation(rng) for centre in centres])
    numbers = np.tile([8, 1, 1], len(centres))
    cell = np.eye(3) * spacing * per_side
    return Frame(
        numbers,
        positions % (spacing * per_side),
        np.zeros_like(positions),
        0.0,
        cell,
        np.ones(3, bool),
    )


def _rotation(rng: np.random.Generator) -> np.ndarray:
    """A rotation drawn evenly, from a unit quaternion."""
    w, x, y, z = (q := rng.normal(size=4)) / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def parser_with_peers(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument(
        "--peers", nargs="+", default=[], metavar="NAME=PYTHON", help="interpreter of each peer"
    )
    parser.add_argument(
        "--config", type=Path, help="TOML or JSON file with the same: name = interpreter"
    )
    parser.add_argument(
        "--core", type=int, default=0, help="core to pin to where taskset exists; -1 does not pin"
    )
    parser.add_argument("--json", type=Path, help="write all results here, too")
    return parser


def peers_of(args: argparse.Namespace) -> dict[str, str]:
    """Interpreters by name, first the config's; a peer without interpreter or adapter is left
    out with a line.
    """
    wanted = _read_config(args.config) if args.config else {}
    wanted |= dict(pair.split("=", 1) for pair in args.peers)
    found = {}
    for name, python in wanted.items():
        if not adapter_of(name).exists():
            print(f"skipped {name}: no adapter {adapter_of(name).name}")
        elif not shutil.which(Path(python).expanduser()):
            print(f"skipped {name}: no interpreter {python}")
        else:
            found[name] = str(Path(python).expanduser())
    return found


def _read_config(path: Path) -> dict[str, str]:
    text = path.read_text()
    return json.loads(text) if path.suffix == ".json" else tomllib.loads(text)


def adapter_of(name: str) -> Path:
    return HERE / f"peer_{name}.py"


class Process:
    """An adapter at work on one task; its output goes to a log beside the task."""

    def __init__(self, name: str, python: str, task: dict, folder: Path, core: int):
        self.name, self.result_path, self.log_path = (
            name,
            folder / f"{name}.json",
            folder / f"{name}.log",
        )
        task_path = folder / f"{name}.task.json"
        task_path.write_text(json.dumps(task))
        pin = ["taskset", "-c", str(core)] if core >= 0 and shutil.which("taskset") else []
        self.log = self.log_path.open("w")
        self.process = subprocess.Popen(
            [*pin, python, str(adapter_of(name)), str(task_path), str(self.result_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=os.environ | ONE_THREAD,
        )

    def await_line(self, mark: str) -> bool:
        """Read to the line that begins with the mark; False where the process ends before it."""
        return any(line.startswith(mark) for line in self.process.stdout)

    def ask(self, mark: str) -> bool:
        """Send one line and wait for its answer; False where the process has ended."""
        try:
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return False
        return self.await_line(mark)

    def finish(self) -> dict | None:
        """End of input, then the result; None with a line where it failed."""
        self.process.communicate()
        self.log.close()
        if self.process.returncode == 0 and self.result_path.exists():
            return json.loads(self.result_path.read_text())
        last = self.log_path.read_text().strip().splitlines()[-8:]
        print("\n  ".join([f"failed {self.name} (exit {self.process.returncode}):", *last]))
        return None


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def save(path: Path | None, results: dict) -> None:
    if path:
        path.write_text(json.dumps(results, indent=1))
