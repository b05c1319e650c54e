"""The architecture, checked: imports point one way and in no circle, files are small, nothing
unsafe is called.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sciforge"
FILES = sorted(PACKAGE.rglob("*.py"))
DOMAINS = sorted(
    f.parent.name
    for f in PACKAGE.glob("*/__init__.py")
    if "DOMAIN = Domain(" in f.read_text(encoding="utf-8")
)
ERRORS = {"errors", "__version__"}
# Room -> the rooms it may import from, besides itself and errors.
ARROWS = {
    "core": set(),
    "nn": {"core"},
    "structures": {"core"},
    "provenance": {"core"},
    "experiments": {"core", "provenance"},
    # the catalogue knows no domain
    **{domain: {"core", "nn", "structures", "catalog"} for domain in DOMAINS},
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
    return dotted_names(ast.parse(path.read_text(encoding="utf-8")), path)


def dotted_names(tree: ast.AST, path: Path) -> set[str]:
    """Return the dotted names that a syntax tree of a file imports, relative ones made absolute."""
    package = ["sciforge", *path.relative_to(PACKAGE).parent.parts]
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names


def imported_files(path: Path) -> set[Path]:
    """Return the files of the package that a file imports when it is run; imports for type
    checkers alone do not count.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in (
            "TYPE_CHECKING",
            "typing.TYPE_CHECKING",
        ):
            node.body = [ast.Pass()]
    files = set()
    for name in dotted_names(tree, path):
        place = PACKAGE.joinpath(*name.split(".")[1:]) if name.split(".")[0] == "sciforge" else None
        if place is not None:
            files |= {
                file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()
            }
    return files - {path}


def cycles(graph: dict[Path, set[Path]]) -> list[list[Path]]:
    """Return groups of files that import one another, each once (Tarjan's strongly connected
    components).
    """
    index: dict[Path, int] = {}
    low: dict[Path, int] = {}
    stack: list[Path] = []
    groups = []

    def visit(file: Path) -> None:
        index[file] = low[file] = len(index)
        stack.append(file)
        for other in graph.get(file, ()):
            if other not in index:
                visit(other)
                low[file] = min(low[file], low[other])
            elif other in stack:
                low[file] = min(low[file], index[other])
        if low[file] == index[file]:
            group = stack[stack.index(file) :]
            del stack[stack.index(file) :]
            if len(group) > 1:
                groups.append(sorted(group))

    for file in graph:
        if file not in index:
            visit(file)
    return groups


def test_no_file_imports_itself_round_about():
    """A file whose import needs another that needs it first can be read in no order; surfaces of
    packages stand apart.
    """
    surfaces = {PACKAGE / "__init__.py"}
    graph = {path: imported_files(path) - surfaces for path in FILES if path not in surfaces}
    found = [" -> ".join(str(file.relative_to(ROOT)) for file in group) for group in cycles(graph)]
    assert not found, found


def inside(path: Path) -> set[str]:
    """Return the rooms (first names below sciforge) that a file imports from."""
    return {name.split(".")[1] for name in modules(path) if name.startswith("sciforge.")}


def rooms(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=rooms)
def test_arrows_point_one_way(path: Path):
    room = path.relative_to(PACKAGE).parts[0]
    if room in ARROWS:
        # a demo shows a curve as a user would draw one
        shown = {"experiments"} if path.name == "demo.py" else set()
        assert not inside(path) - {room, *ERRORS, *ARROWS[room], *shown}


@pytest.mark.parametrize("path", FILES, ids=rooms)
def test_each_package_stays_in_its_room(path: Path):
    room = path.relative_to(PACKAGE).parts[0]
    names = modules(path)
    for package, owners in OWNERS.items():
        if any(name.split(".")[0] == package for name in names):
            assert room in owners, f"{package} is imported in {path}"
    if path.parent != PACKAGE / "core" / "training" or path.stem not in (
        "distributed",
        "tensor_parallel",
    ):
        assert not any(name.startswith("torch.distributed") for name in names)


@pytest.mark.parametrize("path", FILES, ids=rooms)
def test_nothing_unsafe_is_called(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        assert name not in (
            "eval",
            "exec",
            "__import__",
            "pickle.load",
            "pickle.loads",
            "joblib.load",
            "os.system",
        ), name
        options = {option.arg: ast.unparse(option.value) for option in node.keywords}
        assert name != "torch.load" or options.get("weights_only") == "True"
        assert (
            name not in ("np.load", "numpy.load") or options.get("allow_pickle", "False") == "False"
        )
        assert options.get("shell", "False") == "False"
    assert not {name.split(".")[0] for name in modules(path)} & {
        "pickle",
        "dill",
        "joblib",
        "shelve",
        "marshal",
    }


@pytest.mark.parametrize("path", FILES, ids=rooms)
def test_rooms_are_planned_and_small(path: Path):
    assert path.stem not in ("utils", "util", "common", "misc", "helpers", "helper")
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 600
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            documented = ast.get_docstring(node) is not None
            docstring = node.body[0].end_lineno - node.body[0].lineno + 1 if documented else 0
            assert node.end_lineno - node.lineno - docstring < 60, node.name
