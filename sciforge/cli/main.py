"""The command line: verbs are the functions of api.py, flags their typed signatures. It parses, calls and prints.

Exit codes: 0 done; 1 a law is broken, a run is not what it says, a demo failed or something required is missing; 2 bad
input, named in one line; 130 interrupted.
"""

import ast
import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sciforge import __version__
from sciforge.cli.registry import HELP, choose, domain_of, offers, option, read_config, take_option, take_switch
from sciforge.errors import ConfigError, SciforgeError, did_you_mean

# Verb -> the function behind it; its module is imported only when the verb is called.
VERBS = {verb: f"api.{verb}" for verb in (
    "prepare", "train", "fisher", "evaluate", "curve", "predict", "check", "audit", "label", "sample", "generate", "score",
    "schedules", "forget", "verify", "card", "invariance", "privacy", "prune", "distill", "export",
)}  # fmt: skip
VERBS |= {"datasets": "catalog.cards", "doctor": "doctor.doctor", "demo": "demo.demo"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; every error that a user can cause is one line on stderr."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _say
            code = _dispatch(argv)
        sys.stdout.flush()
        return code
    except SciforgeError as error:
        return _complain(str(error), 2)
    except KeyboardInterrupt:
        hint = "; continue with --resume" if argv[:1] == ["train"] else ""
        return _complain(f"interrupted, nothing is left half-written{hint}", 130)
    except BrokenPipeError:  # `sciforge ... | head` closed our output: not an error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _complain(f"{where}{error.strerror or error}; check the path, its permissions and the disk", 2)


def _say(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Print a warning as one line; where in the code it arose helps nobody at a terminal."""
    if os.environ.get("RANK", "0") == "0":
        print(f"sciforge: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _complain(line: str, code: int) -> int:
    rank = os.environ.get("RANK", "0")
    print(f"sciforge{'' if rank == '0' else f' (rank {rank})'}: {' '.join(line.split())}", file=sys.stderr)
    return code


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in HELP:
        print(overview())
        return 0 if argv else 2
    if argv[0] in ("--version", "-V"):
        print(f"sciforge {__version__}")
        return 0
    if argv[0] not in VERBS:
        raise ConfigError(f"no command {argv[0]!r}; {did_you_mean(argv[0], VERBS)}")
    return globals()[f"_{argv[0]}"](argv[1:])


def summaries() -> dict[str, str]:
    """Return verb -> first line of its docstring, read from the source so that nothing heavy is imported."""
    found = {}
    for verb, place in VERBS.items():
        module, function = place.split(".")
        tree = ast.parse((Path(__file__).parents[1] / f"{module}.py").read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name == function:
                found[verb] = (ast.get_docstring(node) or "").partition("\n")[0]
    return found


def overview() -> str:
    """Return what `sciforge --help` prints."""
    lines = [
        "usage: sciforge COMMAND ... [--help]",
        "",
        "Pretrain once on plentiful scientific data, specialise with little.",
        "",
    ]
    lines += [f"  {verb:<10} {text}" for verb, text in summaries().items()]
    return "\n".join([*lines, "", "sciforge COMMAND --help explains a command; sciforge --version prints the version."])


def _call(prog: str, function: Callable, argv: list[str], spec: Any = None, replaced: str = "", text: str = "") -> Any:
    """Parse the flags of a function, those of `spec` standing for the parameter `replaced`, and call it."""
    from sciforge.cli.flags import flags_of_function, parse, summary_of

    flags = flags_of_function(function, replaced) + (spec.flags if spec else [])
    values = parse(prog, text or summary_of(function), flags, argv)
    if spec:
        values[replaced] = spec.build(values)
    return function(**values)


def _prepare(argv: list[str]) -> int:
    name, _, cls, rest = choose("sciforge prepare", "preparers", argv)
    store = _call_with("prepare", name, cls, "what", rest).store
    rows = {"store": store.path, "domain": store.domain, "kind": store.kind, "records": len(store)}
    if store.index["rejected"]:
        rows["rejected"] = f"{store.index['rejected']} (see {store.path / 'rejected.jsonl'})"
    return _show(rows)


def _call_with(verb: str, name: str, cls: type, replaced: str, argv: list[str], choices: Mapping | None = None) -> Any:
    """Call a verb whose parameter `replaced` is a `cls`, given by flags."""
    from sciforge import api
    from sciforge.cli.flags import Spec, summary_of

    spec, prog = Spec(cls, argv, choices or {}), f"sciforge {verb} {name}".rstrip()
    return _call(prog, getattr(api, verb), argv, spec, replaced, summary_of(cls))


def _told(argv: list[str], make: Callable[[list[str]], Any]) -> Any:
    """Make a report of what was typed, `--json` aside, print it as that asks, and return it."""
    as_json, argv = take_switch(argv, "--json")
    found = make(argv)
    _print(json.dumps(found.to_json(), indent=1) if as_json else getattr(found, "text", lambda: found.table().text())())
    return found


def _described(verb: str, cls: type, replaced: str, argv: list[str]) -> Any:
    """Train or curve: the objective by name, or everything from `--config`, then flags over it."""
    from sciforge import api
    from sciforge.cli.flags import Spec, summary_of

    config, default = option(argv, "--config"), None
    if config is None:
        domain = domain_of(option(argv, "--data") or "", "index.json")
        name, home, objective, argv = choose(f"sciforge {verb}", "objectives", argv, domain)
    else:
        default = read_config(Path(config), cls)
        objective, name = type(default.objective), f"--config {config}"
        home = next(d for d, known in offers("objectives").values() if known is objective)
        argv = [w for i, w in enumerate(argv) if not w.startswith("--config") and argv[i - 1 : i] != ["--config"]]
    choices = {"objective": objective, "model": home.models, "codec": home.codec}
    spec = Spec(cls, argv, choices, default)
    return _call(f"sciforge {verb} {name}", getattr(api, verb), argv, spec, replaced, summary_of(objective))


def _train(argv: list[str]) -> int:
    from sciforge.core.training.run import Run

    return _show_checkpoint(_described("train", Run, "run", argv))


def _curve(argv: list[str]) -> int:
    from sciforge.experiments.label_efficiency.run import LabelEfficiency

    _told(argv, lambda words: _described("curve", LabelEfficiency, "spec", words))
    return 0


def _schedules(argv: list[str]) -> int:
    from sciforge.experiments.schedules.run import Schedules

    _told(argv, lambda words: _described("schedules", Schedules, "spec", words))
    return 0


def _forget(argv: list[str]) -> int:
    from sciforge.experiments.forgetting.run import Forgetting

    domain = domain_of(option(argv, "--new") or "", "index.json")
    given, rest = take_option(argv, "--objective")
    head = [given] if given else [w for w in rest if w in HELP]
    name, _, objective, _ = choose("sciforge forget CHECKPOINT --objective", "objectives", head, domain)
    title, choices = f"CHECKPOINT --objective {name}", {"objective": objective}
    _told(rest, lambda words: _call_with("forget", title, Forgetting, "spec", words, choices))
    return 0


def _fisher(argv: list[str]) -> int:
    from sciforge import api

    return _show_checkpoint(_call("sciforge fisher", api.fisher, argv))


def _privacy(argv: list[str]) -> int:
    from sciforge.experiments.privacy.run import Privacy

    return _measured("privacy", Privacy, argv)


def _evaluate(argv: list[str]) -> int:
    from sciforge import api

    as_json, argv = take_switch(argv, "--json")
    return _show(_call("sciforge evaluate", api.evaluate, argv), as_json)


def _predict(argv: list[str]) -> int:
    from sciforge import catalog

    if not argv or argv[0].startswith("-"):
        choose("sciforge predict CHECKPOINT", "outputs", argv)
    folder = catalog.locate(argv[0])
    from sciforge.core.training.checkpoint import resolve

    domain = domain_of(str(resolve(folder)), "checkpoint.json")
    name, _, cls, rest = choose(f"sciforge predict {argv[0]}", "outputs", argv[1:], domain)
    return _print(str(_call_with("predict", name, cls, "output", [argv[0], *rest])))


def _check(argv: list[str]) -> int:
    from sciforge import api
    from sciforge.core.files.tables import Table

    as_json, argv = take_switch(argv, "--json")
    laws = _call("sciforge check", api.check, argv)
    if as_json:
        _print(json.dumps([{**vars(law), "holds": law.holds} for law in laws], indent=1))
    else:
        rows = [
            (w.name, f"{w.violation:.3g}", f"{w.tolerance:.3g}", "yes" if w.holds else "NO", w.summary) for w in laws
        ]
        _print(Table(("law", "violation", "tolerance", "holds", "what it says"), tuple(rows)).text())
    return 0 if all(law.holds for law in laws) else 1


def _prune(argv: list[str]) -> int:
    from sciforge.experiments.compression.pruning import Prune

    return _measured("prune", Prune, argv)


def _distill(argv: list[str]) -> int:
    from sciforge import catalog
    from sciforge.core.domain import get_domain
    from sciforge.core.training.checkpoint import resolve
    from sciforge.experiments.compression.distillation import Distill

    choices = {}
    if argv and not argv[0].startswith("-"):
        place = resolve(catalog.locate(argv[0]))
        if domain := domain_of(str(place), "checkpoint.json"):
            choices = {"model": get_domain(domain).models, "codec": get_domain(domain).codec}
    return _measured("distill", Distill, argv, choices)


def _measured(verb: str, cls: type, argv: list[str], choices: Mapping | None = None) -> int:
    """Run a verb that measures what a `cls` describes, and tell it."""
    _told(argv, lambda words: _call_with(verb, "", cls, "spec", words, choices))
    return 0


def _export(argv: list[str]) -> int:
    from sciforge import api

    return _print(_call("sciforge export", api.export, argv).table().text())


def _verify(argv: list[str]) -> int:
    from sciforge import api

    return 0 if _told(argv, lambda words: _call("sciforge verify", api.verify, words)).sound else 1


def _card(argv: list[str]) -> int:
    from sciforge import api

    return _print(str(_call("sciforge card", api.card, argv)))


def _audit(argv: list[str]) -> int:
    as_json, argv = take_switch(argv, "--json")
    domain = domain_of(option(argv, "--data") or "", "index.json")
    name, _, cls, rest = choose("sciforge audit", "audits", argv, domain)
    report = _call_with("audit", name, cls, "what", rest)
    if as_json:
        return _print(json.dumps({"metrics": report.metrics, "warnings": report.warnings}, indent=1))
    return _print("\n".join([report.section.text(), *(f"warning: {line}" for line in report.warnings)]))


def _invariance(argv: list[str]) -> int:
    from sciforge.experiments.invariance.run import Invariance

    return _measured("invariance", Invariance, argv)


def _generate(argv: list[str]) -> int:
    """As `predict CHECKPOINT generate`: what domains call `generate` is a verb of its own."""
    _, cls = offers("outputs")["generate"]
    return _print(str(_call_with("generate", "CHECKPOINT", cls, "what", argv)))


def _tool(verb: str, argv: list[str]) -> int:
    """Run a tool that a domain adds as a verb of its own."""
    return _print(str(_call_with(verb, "", offers("tools")[verb][1], "what", argv)))


_label, _sample, _score = (partial(_tool, verb) for verb in ("label", "sample", "score"))


def _datasets(argv: list[str]) -> int:
    from sciforge import catalog

    if argv[:1] == ["fetch"]:
        for path in _call("sciforge datasets fetch", catalog.fetch_all, argv[1:]):
            _print(str(path))
        return 0
    if argv[:1] not in (["list"], []) or argv[1:]:
        if any(word in HELP for word in argv):
            return _print("usage: sciforge datasets list | fetch NAME... [--help]")
        raise ConfigError(f"no command {' '.join(['datasets', *argv])!r}; use datasets list, or datasets fetch NAME")
    return _print(catalog.table().text())


def _doctor(argv: list[str]) -> int:
    from sciforge import doctor

    report = _call("sciforge doctor", doctor.doctor, argv)
    _print(report.text())
    return 0 if report.healthy else 1


def _demo(argv: list[str]) -> int:
    from sciforge.demo import demo

    if argv and not argv[0].startswith("-"):
        argv = ["--domain", *argv]
    return _call("sciforge demo", demo, argv)


def _print(text: str) -> int:
    if os.environ.get("RANK", "0") == "0":  # under torchrun one process speaks for all
        print(text)
    return 0


def _show(rows: Mapping[str, Any], as_json: bool = False) -> int:
    if as_json:
        return _print(json.dumps(rows, indent=1))
    width = max(map(len, rows), default=0)
    return _print(
        "\n".join(f"{k:<{width}}  {v:.6g}" if isinstance(v, float) else f"{k:<{width}}  {v}" for k, v in rows.items())
    )


def _show_checkpoint(made: Any) -> int:
    recorded = {**made.metrics, **made.metrics.get("privacy", {})}
    metrics = {k: v for k, v in recorded.items() if isinstance(v, float | int)}
    _show({"checkpoint": made.path, "step": made.step, **metrics})
    if retained := made.metrics.get("retained"):
        from sciforge.core.methods.retention import forgetting_table

        _print("\n" + forgetting_table(retained).text())
    return 0
