"""Mutation check: change one line of the library at a time, and see whether a test notices.

    pip install coverage
    python benchmarks/mutation.py --cache ~/mutation --seed 0 --num 60

First every test runs once under coverage, which says which tests reach which line (kept in the
cache; only test files that changed run again). Then lines are drawn at random among all that can
be mutated, and one mutation of each: comparisons at their border or turned round, arithmetic
operators, constants and slices by one, conditions negated, `and` for `or`, statements dropped,
None returned. Text of messages, annotations, `raise`, `__repr__` and the numbers of pictures
(line widths, sizes) are left alone. Each mutant lives in a copy of the repository and meets the
tests that reach its line until one fails; a hang counts as killed. A test that kills must pass on
the copy without mutation. Lines that run on import, or in other processes only, meet the tests of
their module.

Results stand in CACHE/seed-N.json and are not measured again; `--again` gives survivors another
chance, after tests were added.
"""

import argparse
import ast
import copy
import difflib
import hashlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PATHS = ("sciforge/core", "sciforge/experiments")
TESTS = (
    "tests/core",
    "tests/experiments",
    *(f"tests/test_{name}.py" for name in ("cli", "contract", "golden", "new_domain", "sklearn")),
    *PATHS,  # their doctests
)
# Left out: tests of one behaviour in further domains, of thousands of damaged files, and those
# that take more than some 15 s.
LEFT_OUT = re.compile(
    r"[\[-](atoms|heat|images|molecules|text)[\]-]|test_damaged_files|test_a_flipped_byte"
    r"|test_forged_json|test_methods_learn_the_same|test_groups_of_one_store|two_processes_each"
    r"|test_it_goes_on_where|test_molecules_of_two|test_the_sense_of_a_figure|slurm_template"
    r"|test_names_are_listed_without|test_a_dask_cluster|test_a_domain_without_heads"
    r"|test_private_checkpoint_keeps|test_other_domains_adapt"
)
# The manual of the command line lists the default of every option.
DEFAULTS = "tests/test_cli.py::test_the_manual_is_up_to_date"
PRELOADED = (
    "torch",
    "pandas",
    "scipy.stats",
    "sklearn.linear_model",
    "matplotlib.figure",
    "pytest",
)
OPTIONS = ("-q", "-n0", "-p", "no:cacheprovider", "--rootdir=.", "--no-header")

SWAPS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.And: ast.Or,
    ast.Or: ast.And,
}

# Mutants that no test can kill, because they change nothing that may be relied on:
# (path, line of code, what it becomes) -> why.
EXPLAINED: dict[tuple[str, str, str], str] = {}


@dataclass(frozen=True)
class Mutant:
    """One change of one line.

    Args:
        path: of the file, from the repository's root.
        code: the first line of what changes, without indentation.
        number: which of the equal lines of the file, from 0.
        before, after: the code that changes.
        kind: of the change.
    """

    path: str
    code: str
    number: int
    before: str
    after: str
    kind: str

    @property
    def explanation(self) -> str | None:
        """Why it changes nothing, where that is known."""
        return EXPLAINED.get((self.path, self.code, self.after))


@dataclass(frozen=True)
class Site:
    """Where a mutant is in the present file: its statement's lines and the span of bytes."""

    mutant: Mutant
    first: int
    last: int
    start: int
    end: int


# Mutations --------------------------------------------------------------------------------------


def changes(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST, str]]:
    """Yield (part, what it becomes, kind) for every mutation of a node itself."""
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            new = copy.deepcopy(node)
            new.ops[place] = SWAPS[type(operator)]()
            yield node, new, "comparison"
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in SWAPS:
        if not any(map(is_text, ast.iter_child_nodes(node))):
            new = copy.deepcopy(node)
            new.op = SWAPS[type(node.op)]()
            yield node, new, "arithmetic"
    elif isinstance(node, ast.BoolOp):
        new = copy.deepcopy(node)
        new.op = SWAPS[type(node.op)]()
        yield node, new, "and/or"
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield node, ast.Constant(not node.value), "constant"
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        for step in (1, -1):
            yield node, ast.Constant(node.value + step), "constant"
    elif isinstance(node, ast.Slice):
        for bound in (node.lower, node.upper):
            if bound is not None:
                yield bound, ast.BinOp(bound, ast.Add(), ast.Constant(1)), "slice"
    elif isinstance(node, ast.Return) and node.value is not None:
        if not (isinstance(node.value, ast.Constant) and node.value.value is None):
            yield node, ast.Return(ast.Constant(None)), "return None"
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        yield node.test, ast.UnaryOp(ast.Not(), node.test), "negation"


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def is_dropped(node: ast.AST, scope: str) -> bool:
    """Return whether a statement is one whose absence a test should notice."""
    if isinstance(node, ast.Assign | ast.AugAssign):
        return bool(scope)
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)


def visit(node: ast.AST, statement: ast.stmt | None, scope: str) -> Iterator[tuple]:
    """Yield (statement, part, what it becomes, kind) below a node."""
    if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom):
        return
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.FunctionDef):
        if node.name in ("__repr__", "_repr_html_"):
            return
        scope = node.name
    if isinstance(node, ast.Constant) and scope.strip("_").startswith(("plot", "draw", "name_")):
        return
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("warn", "Error", "print")):
        return
    if isinstance(node, ast.stmt):
        statement = node
        if is_dropped(node, scope):
            yield statement, node, ast.Pass(), "dropped"
    for part, new, kind in changes(node):
        yield statement, part, new, kind
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from visit(child, statement, scope)


def sites_of(path: Path, root: Path) -> list[Site]:
    """Return every mutation of a file."""
    source = path.read_bytes()
    lines = source.split(b"\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    codes = [line.decode().strip() for line in lines]
    sites = []
    for statement, part, new, kind in visit(ast.parse(source), None, ""):
        start = starts[part.lineno - 1] + part.col_offset
        end = starts[part.end_lineno - 1] + part.end_col_offset
        after = ast.unparse(ast.fix_missing_locations(new))
        after = f"({after})" if isinstance(new, ast.expr) else after
        code = codes[part.lineno - 1]
        number = codes[: part.lineno - 1].count(code)
        mutant = Mutant(
            str(path.relative_to(root)), code, number, source[start:end].decode(), after, kind
        )
        first, last = statement.lineno, statement.end_lineno
        if hasattr(statement, "body"):  # its head alone
            first, last = part.lineno, part.end_lineno
        sites.append(Site(mutant, first, last, start, end))
    return sites


def draw(sites: list[Site], num: int, seed: int) -> list[Site]:
    """Return one mutation of each of `num` lines drawn at random."""
    lines: dict[tuple[str, str, int], list[Site]] = {}
    for site in sites:
        lines.setdefault((site.mutant.path, site.mutant.code, site.mutant.number), []).append(site)
    rng = random.Random(seed)
    return [rng.choice(lines[key]) for key in rng.sample(sorted(lines), num)]


# Which tests reach which line -----------------------------------------------------------------


class Contexts:
    """A plugin of pytest that names each test to coverage, and notes how long tests take."""

    def __init__(self, measured: Any = None) -> None:
        self.measured, self.seconds, self.failed = measured, {}, []

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if not LEFT_OUT.search(item.nodeid)]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        if self.measured is not None:
            self.measured.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.failed.append(f"collection of {report.nodeid}")


def measure(tests: list[str], file: str) -> None:
    """Run tests under coverage and write test -> seconds, and path -> line -> tests, as JSON."""
    import coverage
    import pytest

    measured = coverage.Coverage(data_file=None, source=list(PATHS), config_file=False)
    contexts = Contexts(measured)
    measured.start()
    pytest.main([*OPTIONS, *tests], plugins=[contexts])
    measured.stop()
    data, lines = measured.get_data(), {}
    for path in data.measured_files():
        by_line = data.contexts_by_lineno(path)
        name = str(Path(path).relative_to(Path.cwd()))
        lines[name] = {str(n): sorted(filter(None, tests)) for n, tests in by_line.items()}
    passed = {k: v for k, v in contexts.seconds.items() if k not in contexts.failed}
    Path(file).write_text(json.dumps({"seconds": passed, "lines": lines}))


class Reach:
    """Which tests reach which line; kept in a file, and brought up to date with the sources."""

    def __init__(self, cache: Path, tree: Path) -> None:
        self.file, self.tree = cache / "reach.json", tree
        empty: dict[str, Any] = {"sources": {}, "tests": {}, "seconds": {}, "lines": {}}
        self.body = json.loads(self.file.read_text()) if self.file.exists() else empty
        self.move_lines()

    def move_lines(self) -> None:
        """Give every line its present number."""
        for path in sorted(p for top in PATHS for p in (self.tree / top).rglob("*.py")):
            name, text = str(path.relative_to(self.tree)), path.read_text()
            old, lines = self.body["sources"].get(name), self.body["lines"].get(name, {})
            if old is not None and old != text:
                same = difflib.SequenceMatcher(
                    None, old.split("\n"), text.split("\n"), autojunk=False
                )
                moved = {
                    str(a + k + 1): str(b + k + 1)
                    for a, b, size in same.get_matching_blocks()
                    for k in range(size)
                }
                self.body["lines"][name] = {moved[n]: t for n, t in lines.items() if n in moved}
            self.body["sources"][name] = text

    def update(self) -> None:
        """Run the test files that are new or changed."""
        digests = {
            str(p.relative_to(self.tree)): hashlib.sha256(p.read_bytes()).hexdigest()
            for top in TESTS
            for p in ([self.tree / top] if top.endswith(".py") else (self.tree / top).rglob("*.py"))
            if p.name.startswith("test_") or ">>>" in p.read_text()
        }
        stale = [name for name, digest in digests.items() if self.body["tests"].get(name) != digest]
        for top in TESTS:  # in parts, so that little is lost when it is stopped
            part = [name for name in stale if Path(name).is_relative_to(top)]
            if part:
                self.measure(part)
                self.body["tests"] |= {name: digests[name] for name in part}
                self.file.write_text(json.dumps(self.body))

    def measure(self, tests: list[str]) -> None:
        """Run test files under coverage and take over what it says."""
        print(f"coverage of {len(tests)} test files", flush=True)
        file, log = self.file.with_name("measured.json"), self.file.with_name("coverage.log")
        code = f"import mutation; mutation.measure({tests!r}, {str(file)!r})"
        environment = {**os.environ, "PYTHONPATH": f"{self.tree}:{ROOT / 'benchmarks'}"}
        with open(log, "w") as output:
            streams = {"stdout": output, "stderr": subprocess.STDOUT}
            command = [sys.executable, "-c", code]
            subprocess.run(command, cwd=self.tree, env=environment, check=True, **streams)
        self.merge(json.loads(file.read_text()), tests)

    def merge(self, measured: dict[str, Any], stale: list[str]) -> None:
        """Take over what was measured in place of what is known of these test files."""

        def is_old(test: str) -> bool:
            return test.partition("::")[0] in stale

        kept = {k: v for k, v in self.body["seconds"].items() if not is_old(k)}
        self.body["seconds"] = kept | measured["seconds"]
        for name in {*self.body["lines"], *measured["lines"]}:
            lines = self.body["lines"].setdefault(name, {})
            new = measured["lines"].get(name, {})
            for number in {*lines, *new}:
                tests = [test for test in lines.get(number, []) if not is_old(test)]
                lines[number] = tests + [t for t in new.get(number, []) if t in measured["seconds"]]

    def tests(self, site: Site) -> list[str]:
        """Return the tests that reach a mutant, the fastest of each file first; those of its module
        where none does.
        """
        lines, seconds = self.body["lines"].get(site.mutant.path, {}), self.body["seconds"]
        numbers = range(site.first, site.last + 1)
        reaching = {test for n in numbers for test in lines.get(str(n), [])}
        if not reaching:
            module = site.mutant.path.removesuffix(".py").replace("/", ".")
            files = [f for f in self.body["tests"] if module in (self.tree / f).read_text()]
            reaching = {test for tests in lines.values() for test in tests} | {DEFAULTS}
            reaching |= {test for test in seconds if test.partition("::")[0] in files}
        ranks: dict[str, int] = {}
        order = []
        for test in sorted(reaching & set(seconds), key=lambda t: (seconds[t], t)):
            file = test.partition("::")[0]
            ranks[file] = ranks.get(file, -1) + 1
            order.append((ranks[file] if test != DEFAULTS else -1, seconds[test], test))
        return [test for _, _, test in sorted(order)]

    def within(self, tests: list[str], budget: float) -> list[str]:
        """Return the first tests that together take no longer than `budget` seconds."""
        chosen, total = [], 0.0
        for test in tests:
            total += self.body["seconds"].get(test, 30.0)
            if chosen and total > budget:
                break
            chosen.append(test)
        return chosen


# Mutants meet tests -----------------------------------------------------------------------------


def run_tests(tree: str, tests: list[str], log: str, answer: Any) -> None:
    """Run tests in a tree, in a process of their own; sends the first failure, or None."""
    os.setsid()
    os.chdir(tree)
    sys.path.insert(0, tree)
    sys.dont_write_bytecode = True
    os.environ |= {"PYTHONPATH": tree, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    import pytest
    import torch

    torch.set_num_threads(1)
    contexts = Contexts()
    code = pytest.main([*OPTIONS, "-x", *tests], plugins=[contexts])
    failed = contexts.failed[0] if contexts.failed else None
    answer.send(failed or (None if code in (0, 5) else f"pytest stopped with {code}"))


def first_failure(tree: Path, tests: list[str], log: Path, limit: float) -> str | None:
    """Return the first test that fails; a hang is one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=run_tests, args=(str(tree), tests, str(log), send))
    process.start()
    send.close()
    try:
        failed = receive.recv() if receive.poll(limit) else "time limit"
    except EOFError:
        failed = "the process died"
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.join()
    return failed


def judge(site: Site, reach: Reach, cache: Path, budget: float) -> dict[str, Any]:
    """Return what becomes of a mutant."""
    mutant, tree = site.mutant, reach.tree
    reaching = reach.tests(site)
    tests = reach.within(reaching, budget)
    outcome = {"line": site.first, "reached_by": len(reaching), "tried": len(tests)}
    if not tests:
        return {**outcome, "outcome": "survived", "killed_by": None}
    file = tree / mutant.path
    original, times = file.read_bytes(), file.stat()
    try:
        changed = original[: site.start] + mutant.after.encode() + original[site.end :]
        file.write_bytes(changed)
        os.utime(file, (times.st_atime, times.st_mtime + 60))  # so that no old bytecode is taken
        limit = 120 + 10 * sum(reach.body["seconds"].get(t, 30.0) for t in tests)
        failed = first_failure(tree, tests, cache / "mutant.log", limit)
    finally:
        file.write_bytes(original)
        os.utime(file, (times.st_atime, times.st_mtime))
    return {**outcome, "outcome": "killed" if failed else "survived", "killed_by": failed}


def copy_tree(cache: Path) -> Path:
    """Copy the repository's files, as they are now, and return the copy."""
    tree = cache / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    return tree


def unjust(results: list[dict[str, Any]], reach: Reach, cache: Path) -> list[str]:
    """Return the killing tests that fail without any mutation too."""
    killers = sorted({str(r["killed_by"]) for r in results if "::" in str(r["killed_by"])})
    failing: list[str] = []
    while killers:
        failed = first_failure(reach.tree, killers, cache / "clean.log", 3600)
        if failed is None:
            return failing
        if failed not in killers:
            raise SystemExit(f"the tests do not run without a mutation: {failed}")
        failing.append(failed)
        killers = killers[killers.index(failed) + 1 :]
    return failing


def report(results: list[dict[str, Any]]) -> str:
    """Return a table of all mutants and the share that was killed or explained."""
    rows = []
    for r in results:
        after = " ".join(r["after"].split())
        rows.append(f"{r['outcome']:9} {r['path']}:{r['line']}  [{r['kind']}] {r['code'][:70]}")
        rows.append(f"{'':9}   -> {after[:90]}")
        rows.append(f"{'':9}   {r['killed_by'] or r.get('why') or 'no test noticed'}")
    count = {
        k: sum(r["outcome"] == k for r in results) for k in ("killed", "explained", "survived")
    }
    share = (count["killed"] + count["explained"]) / max(len(results), 1)
    rows.append(
        f"{len(results)} mutants: {count['killed']} killed, {count['explained']} explained,"
        f" {count['survived']} survived; {share:.1%} killed or explained"
    )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cache", type=Path, required=True, help="folder outside of the repository"
    )
    parser.add_argument("--num", type=int, default=60, help="lines to mutate")
    parser.add_argument("--seed", type=int, default=0, help="of the choice")
    parser.add_argument("--paths", nargs="+", default=PATHS, help="folders whose files are mutated")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of tests a mutant")
    parser.add_argument("--again", action="store_true", help="try survivors again")
    args = parser.parse_args()
    cache = args.cache.expanduser().resolve()
    cache.mkdir(parents=True, exist_ok=True)
    tree = copy_tree(cache)
    reach = Reach(cache, tree)
    reach.update()
    files = sorted(p for top in args.paths for p in (tree / top).rglob("*.py"))
    sites = [site for path in files for site in sites_of(path, tree)]
    file = cache / f"seed-{args.seed}.json"
    known = json.loads(file.read_text()) if file.exists() else None
    if known is None:
        known = [asdict(site.mutant) for site in draw(sites, args.num, args.seed)]
    places = {tuple(asdict(site.mutant).values()): site for site in sites}
    for result in known:
        mutant = Mutant(**{name: result[name] for name in Mutant.__dataclass_fields__})
        if mutant.explanation:
            result |= {"outcome": "explained", "why": mutant.explanation, "killed_by": None}
        if result.get("outcome") in ("killed", "explained") and "line" in result:
            continue
        if result.get("outcome") == "survived" and not args.again:
            continue
        site = places.get(tuple(asdict(mutant).values()))
        if site is None:
            result |= {"line": 0, "outcome": "gone", "killed_by": "the code changed since"}
            continue
        if mutant.explanation:
            result["line"] = site.first
            continue
        start = time.perf_counter()
        result |= judge(site, reach, cache, args.budget)
        result["seconds"] = round(time.perf_counter() - start, 1)
        file.write_text(json.dumps(known, indent=1))
        print(report([result]).rsplit("\n", 1)[0], flush=True)
    for test in unjust(known, reach, cache):
        for result in (r for r in known if r["killed_by"] == test):
            result |= {"outcome": "survived", "killed_by": None, "why": f"{test} fails anyway"}
    file.write_text(json.dumps(known, indent=1))
    print(report([r for r in known if r["outcome"] != "gone"]))


if __name__ == "__main__":
    main()
