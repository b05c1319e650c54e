"""Large stores: how long one of 100 GB takes to open, and whether preparing many small records or
contigs is linear.

    python benchmarks/store_scale.py [--gigabytes 100] [--records 10000 100000 1000000]
                                     [--contigs 1000 10000 100000]

The large store is of sparse files (100 shards, a ragged and a fixed column), whose time stamps are
noted as those of files that were compared with their digests before; each opening is a new process
with a cold index. Preparation is timed by processor seconds, the source files written beforehand.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from sciforge.core.data.store import FORMAT, Preparer, prepare
from sciforge.core.files.atomic import write_json
from sciforge.core.files.links import cache_folder
from sciforge.core.files.verified_files import check_files_once
from sciforge.genomes.data.genome import Genome
from sciforge.genomes.data.labelled_sequences import Sequences

SHARDS, ROWS = 100, 1000  # records in a shard
OPEN = """
import sys, time
from pathlib import Path
from sciforge.core.data.store import Store
began = time.perf_counter()
store = Store.open(Path(sys.argv[1]))
opened = time.perf_counter() - began
began = time.perf_counter()
record = store[len(store) // 2]
print(opened, time.perf_counter() - began, len(store), len(record["codes"]))
"""


def sparse_store(folder: Path, gigabytes: float) -> Path:
    """Make a store of sparse files; return its folder."""
    length = int(gigabytes * 1e9 / SHARDS / ROWS)
    folder.mkdir()
    shards = []
    for number in range(SHARDS):
        name = f"shard-{number:05d}"
        (folder / f"{name}.codes.bin").touch()
        os.truncate(folder / f"{name}.codes.bin", length * ROWS)
        (np.arange(ROWS + 1, dtype="<i8") * length).tofile(folder / f"{name}.codes.offsets.bin")
        np.zeros(ROWS, "<i8").tofile(folder / f"{name}.label.bin")
        files = {f"{name}.{end}": "0" * 64 for end in ("codes.bin", "codes.offsets.bin")}
        codes = {"kind": "ragged", "dtype": "|u1", "row_shape": []}
        label = {"kind": "fixed", "dtype": "<i8", "row_shape": []}
        shards.append(
            {
                "name": name,
                "num_records": ROWS,
                "columns": {"codes": codes, "label": label},
                "files": {**files, f"{name}.label.bin": "0" * 64},
            }
        )
    index = {"format": FORMAT, "domain": "genomes", "kind": "genome", "shards": shards, "meta": {}}
    write_json(folder / "index.json", {**index, "preparer": {}, "rejected": 0})
    return folder


def note_as_verified(folder: Path, index_files: dict[str, str]) -> None:
    """Note the stamps of the files as a full check, which would read them all, does."""
    from sciforge.core.files import verified_files

    read = verified_files.check_files
    verified_files.check_files = lambda *_: None
    try:
        check_files_once(folder, index_files, ValueError)
    finally:
        verified_files.check_files = read


def opening(gigabytes: float, repeats: int = 5) -> None:
    """Print how long a large store takes to open."""
    with tempfile.TemporaryDirectory() as place:
        os.environ["SCIFORGE_CACHE"] = str(Path(place) / "cache")
        folder = sparse_store(Path(place) / "store", gigabytes)
        time.sleep(3)  # files that have just changed are read
        names = ("codes.bin", "codes.offsets.bin", "label.bin")
        files = {f"shard-{n:05d}.{name}": "0" * 64 for n in range(SHARDS) for name in names}
        note_as_verified(folder, files)
        assert any((cache_folder() / "verified").iterdir())
        size = sum(file.stat().st_size for file in folder.iterdir())
        times = []
        for _ in range(repeats):
            done = subprocess.check_output([sys.executable, "-c", OPEN, folder], text=True)
            times.append(done.split())
        opened, read = (sorted(float(line[i]) for line in times) for i in (0, 1))
        print(
            f"store of {size / 1e9:.1f} GB, {times[0][2]} records of {times[0][3]} bytes, {SHARDS}"
            f" shards: opens in {opened[len(opened) // 2]:.3f} s ({opened[0]:.3f} to"
            f" {opened[-1]:.3f}), a record in {read[len(read) // 2] * 1e3:.1f} ms"
        )


def sequences(path: Path, count: int) -> Preparer:
    """Write so many labelled sequences of 40 bases."""
    rng = np.random.default_rng(0)
    letters = np.frombuffer(b"ACGT", np.uint8)[rng.integers(0, 4, (count, 40))]
    rows = (f"{row.tobytes().decode()}\t{i % 2}\n" for i, row in enumerate(letters))
    path.write_text("sequence\tlabel\n" + "".join(rows))
    return Sequences(files=(path,), validation_share=0.1)


def contigs(path: Path, count: int) -> Preparer:
    """Write so many contigs of 200 bases."""
    rng = np.random.default_rng(0)
    letters = np.frombuffer(b"ACGT", np.uint8)[rng.integers(0, 4, (count, 200))]
    path.write_text("".join(f">c{i}\n{row.tobytes().decode()}\n" for i, row in enumerate(letters)))
    return Genome(files=(path,))


def preparing(what: str, write: object, counts: list[int]) -> None:
    """Print the processor time of preparing so many records."""
    for count in counts:
        with tempfile.TemporaryDirectory() as place:
            preparer = write(
                Path(place) / ("input.tsv" if what == "sequences" else "input.fa"), count
            )
            began = time.process_time()
            store = prepare(preparer, Path(place) / "store")
            seconds = time.process_time() - began
            assert len(store) >= count
        print(f"{what}: {count} in {seconds:.2f} s, {seconds / count * 1e6:.1f} us each")


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=100.0)
    parser.add_argument("--records", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--contigs", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    options = parser.parse_args()
    opening(options.gigabytes)
    preparing("sequences", sequences, options.records)
    preparing("contigs", contigs, options.contigs)


if __name__ == "__main__":
    main()
