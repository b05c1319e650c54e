"""The plan of the house, walked: imports point one way, rooms are small, nothing unsafe is called."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sciforge"
FILES = sorted(PACKAGE.rglob("*.py"))
DOMAINS = sorted(
    f.parent.name for f in PACKAGE.glob("*/__init__.py") if "DOMAIN = Domain(" in f.read_text(encoding="utf-8")
)
ERRORS = {"errors", "__version__"}
# Room -> the rooms it may import from, besides itself and errors.
ARROWS = {
    "core": set(),
    "nn": {"core"},
    "structures": {"core"},
    "provenance": {"core"},
    "experiments": {"core", "provenance"},
    **{domain: {"core", "nn", "structures", "catalog"} for domain in DOMAINS},  # the catalogue knows no domain
}
# Packages of one domain's science; each may be imported in these rooms only.
OWNERS = {
    "Bio": {"genomes"},
    "rdkit": {"molecules", "structures"},
    "torch_geometric": {"molecules", "atoms", "structures"},
    "e3nn": {"atoms", "nn"},
    "ase": {"atoms", "structures"},
    "vesin": {"structures"},
    "PIL": {"images"},
    "tokenizers": {"text"},
}


def modules(path: Path) -> set[str]:
    """Return the dotted names that a file imports, relative ones made absolute."""
    package = ["sciforge", *path.relative_to(PACKAGE).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


def inside(path: Path) -> set[str]:
    """Return the rooms (first names below sciforge) that a file imports from."""
    return {name.split(".")[1] for name in modules(path) if name.startswith("sciforge.")}


def rooms(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=rooms)
def test_arrows_point_one_way(path: Path):
    room = path.relative_to(PACKAGE).parts[0]
    if room in ARROWS:
        shown = {"experiments"} if path.name == "demo.py" else set()  # a demo shows a curve as a user would draw one
        assert not inside(path) - {room, *ERRORS, *ARROWS[room], *shown}


@pytest.mark.parametrize("path", FILES, ids=rooms)
def test_each_package_stays_in_its_room(path: Path):
    room = path.relative_to(PACKAGE).parts[0]
    names = modules(path)
    for package, owners in OWNERS.items():
        if any(name.split(".")[0] == package for name in names):
            assert room in owners, f"{package} is imported in {path}"
    if path != PACKAGE / "core" / "training" / "distributed.py":
        assert not any(name.startswith("torch.distributed") for name in names)


@pytest.mark.parametrize("path", FILES, ids=rooms)
def test_nothing_unsafe_is_called(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        assert name not in ("eval", "exec", "__import__", "pickle.load", "pickle.loads", "joblib.load", "os.system"), (
            name
        )
        options = {option.arg: ast.unparse(option.value) for option in node.keywords}
        assert name != "torch.load" or options.get("weights_only") == "True"
        assert name not in ("np.load", "numpy.load") or options.get("allow_pickle", "False") == "False"
        assert options.get("shell", "False") == "False"
    assert not {name.split(".")[0] for name in modules(path)} & {"pickle", "dill", "joblib", "shelve", "marshal"}


@pytest.mark.parametrize("path", FILES, ids=rooms)
def test_rooms_are_planned_and_small(path: Path):
    assert path.stem not in ("utils", "util", "common", "misc", "helpers", "helper")
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name
