"""One function a command: it takes the flags of a verb, calls the verb, and prints or writes
what it returns.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import sciforge
from sciforge.cli import output
from sciforge.cli.flags import Flag, Spec, flags_of_function, parse
from sciforge.cli.registry import (
    HELP,
    choose,
    domain_of,
    domain_of_checkpoint,
    option,
    read_config,
    read_tasks,
    take_option,
)
from sciforge.core.files.docstrings import summary_of
from sciforge.errors import ConfigError

# How the command line reads parameters that take more kinds of values in Python.
HINTS: dict[str, Any] = {
    "checkpoint": Path,
    "data": Path,
    "input": str | None,
    "target": tuple[str, ...],
    "split": str | None,
    "group": str | None,
}
# Python only: labels in memory, and `--quiet` in their place.
PYTHON_ONLY = ("targets", "verbose", "settings", "which")
OUT = Flag(
    "cli/out",
    "out",
    Path | None,
    None,
    "file to write, its suffix chooses the format; None prints the table.",
)
JSON = Flag("cli/json", "json", bool, False, "print JSON.")
TASKS = Flag(
    "cli/tasks",
    "tasks",
    Path | None,
    None,
    "TOML or JSON file of several things to learn at once, in place of an objective and --data.",
)
# verbs that name their objective first
PREPARED = ("train", "label-efficiency", "transfer", "schedules")


def run(verb: str, argv: list[str], quiet: bool = False) -> int:
    """Run a command and return its exit code."""
    if verb in ("fit", "prepare"):
        return (_fit if verb == "fit" else _prepare)(argv, quiet)
    special = {
        "train": _train,
        "fisher": _fisher,
        "predict": _predict,
        "check": _check,
        "verify": _verify,
        "audit": _audit,
        "datasets": _datasets,
        "doctor": _doctor,
        "demo": _demo,
        "generate": _generate,
        "forgetting": _forgetting,
        "distill": _distill,
        "label-efficiency": _label_efficiency,
        "transfer": _transfer,
        "schedules": _schedules,
    }
    if verb in special:
        return special[verb](argv)
    function = _verb(verb)
    if hasattr(function, "offer"):
        return _tool(verb, argv)
    if hasattr(function, "settings"):
        return _experiment(verb, argv)
    values = _parsed(f"sciforge {verb}", function, argv, extra=_printing(verb))
    return _print(function, values)


def _verb(name: str) -> Callable[..., Any]:
    return getattr(sciforge, name.replace("-", "_"))


def verb_flags(function: Callable[..., Any], replaced: str = "") -> list[Flag]:
    """Return a flag for each parameter of a verb but `replaced`, with the types that can be
    typed.
    """
    flags = []
    for flag in flags_of_function(function, replaced):
        if flag.name in PYTHON_ONLY:
            continue
        if flag.name == TASKS.name:  # a file on the command line
            flag = replace(TASKS, key=flag.key)
        hint = HINTS.get(flag.name, flag.hint)
        if flag.name == "out" and flag.default is None:
            # a temporary folder would be gone when the command ends
            flag, hint = replace(flag, default=MISSING), Path
        if hint is Path and flag.default is None:
            hint = Path | None
        default = () if flag.name == "target" and flag.default is None else flag.default
        flags.append(replace(flag, hint=hint, default=default))
    return flags


def _printing(verb: str, cls: type | None = None) -> list[Flag]:
    """Return the flags that say how a result is printed; `--out` only where the verb itself has
    none.
    """
    own = {"out"} if verb in ("export", "card", "prepare", "fit") else set()
    own |= {f.name for f in fields(cls)} if cls is not None else set()
    flags = [] if "out" in own or verb in ("verify", "audit", "card", "fisher") else [OUT]
    return flags if verb in ("export", "card") else [*flags, JSON]


def _parsed(
    prog: str,
    function: Callable[..., Any],
    argv: list[str],
    spec: Spec | None = None,
    replaced: str = "",
    text: str = "",
    extra: list[Flag] | None = None,
) -> dict[str, Any]:
    """Parse the flags of a verb, those of `spec` standing for the parameter `replaced`."""
    flags = verb_flags(function, replaced) + (spec.flags if spec else []) + (extra or [])
    values = parse(prog, text or summary_of(function), flags, argv)
    if spec:
        values[replaced] = spec.build(values)
    if values.get("target") == ():
        values["target"] = None
    return values


def _print(function: Callable[..., Any], values: dict[str, Any]) -> int:
    """Call a verb and print or save its result."""
    out, as_json = values.pop("cli/out", None), values.pop("cli/json", False)
    return output.print_result(function(**values), out, as_json)


def _offered(
    verb: str, name: str, cls: type, parameter: str, argv: list[str]
) -> tuple[Callable, dict[str, Any]]:
    """Return a verb whose parameter is one of what a domain offers, given by flags, and its
    parsed values.
    """
    spec, prog = Spec(cls, argv, {}), f"sciforge {verb} {name}".rstrip()
    function = _verb(verb)
    values = _parsed(
        prog, inspect.unwrap(function), argv, spec, parameter, summary_of(cls), _printing(verb, cls)
    )
    return function, values


# Data ---------------------------------------------------------------------------------------------


def _prepare(argv: list[str], quiet: bool) -> int:
    name, _, cls, rest = choose("sciforge prepare", "preparers", argv)
    function, values = _offered("prepare", name, cls, "preparer", rest)
    as_json = values.pop("cli/json")
    dataset = function(**values)
    return (
        output.print_result(dataset, None, True)
        if as_json
        else output.print_dataset(dataset, quiet)
    )


def _audit(argv: list[str]) -> int:
    domain = domain_of(option(argv, "--data") or "", "index.json")
    name, _, cls, rest = choose("sciforge audit", "audits", argv, domain)
    function, values = _offered("audit", name, cls, "what", rest)
    as_json = values.pop("cli/json")
    return output.print_audit(function(**values), as_json)


def _tool(verb: str, argv: list[str]) -> int:
    """Run a tool that a domain adds as a verb of its own."""
    from sciforge.core.domain import find_offer

    kind, name, parameter = _verb(verb).offer  # type: ignore[attr-defined]
    function, values = _offered(verb, "", find_offer(kind, name)[1], parameter, argv)
    return _print(function, values)


def _datasets(argv: list[str]) -> int:
    from sciforge import catalog

    if argv[:1] == ["fetch"]:
        values = _parsed("sciforge datasets fetch", catalog.fetch_all, argv[1:])
        return output.print_text("\n".join(map(str, catalog.fetch_all(**values))))
    if argv[:1] == ["find"]:
        values = _parsed("sciforge datasets find", catalog.find, argv[1:])
        return output.print_text(str(catalog.find(**values)))
    if argv[:1] not in (["list"], []) or argv[1:]:
        if any(word in HELP for word in argv):
            return output.print_text(
                "usage: sciforge datasets list | find NAME | fetch NAME... [--help]"
            )
        raise ConfigError(
            f"no command {' '.join(['datasets', *argv])!r}; use datasets list, or datasets fetch"
            " NAME"
        )
    return output.print_text(catalog.table().text())


# Models -------------------------------------------------------------------------------------------


def _train(argv: list[str]) -> int:
    function, values = _described("train", "run", argv)
    return output.print_checkpoint(function(**values))


def _fit(argv: list[str], quiet: bool) -> int:
    if len(argv) > 1 and not argv[1].startswith("-"):  # sciforge fit CHECKPOINT table.csv
        argv = [argv[0], "--data", *argv[1:]]
    values = _parsed("sciforge fit", sciforge.fit, argv)
    return output.print_checkpoint(sciforge.fit(**values, verbose=not quiet).checkpoint)


def _fisher(argv: list[str]) -> int:
    return output.print_checkpoint(
        sciforge.fisher(**_parsed("sciforge fisher", sciforge.fisher, argv))
    )


def _predict(argv: list[str]) -> int:
    from sciforge import catalog

    if not argv or argv[0].startswith("-"):
        choose("sciforge predict CHECKPOINT", "outputs", argv)
    catalog.locate(argv[0])
    domain = domain_of_checkpoint(argv[0])
    name, _, cls, rest = choose(f"sciforge predict {argv[0]}", "outputs", argv[1:], domain)
    function, values = _offered("predict", name, cls, "output", [argv[0], *rest])
    return _print(function, values)


def _generate(argv: list[str]) -> int:
    """As `predict CHECKPOINT generate`: what domains call `generate` is a verb of its own."""
    from sciforge.core.domain import find_offer

    cls = find_offer("outputs", "generate", domain_of_checkpoint(argv[0]) if argv else None)[1]
    function, values = _offered("generate", "CHECKPOINT", cls, "what", argv)
    return _print(function, values)


def _check(argv: list[str]) -> int:
    values = _parsed("sciforge check", sciforge.check, argv, extra=_printing("check"))
    out, as_json = values.pop("cli/out"), values.pop("cli/json")
    result = sciforge.check(**values)
    output.print_result(result, out, as_json)
    return 0 if result.holds else 1


def _verify(argv: list[str]) -> int:
    values = _parsed("sciforge verify", sciforge.verify, argv, extra=[JSON])
    as_json = values.pop("cli/json")
    result = sciforge.verify(**values)
    output.print_result(result, None, as_json)
    return 0 if result.sound else 1


# Experiments --------------------------------------------------------------------------------------


def _described(verb: str, parameter: str, argv: list[str]) -> tuple[Callable, dict[str, Any]]:
    """Return a verb whose objective is named first, or everything by `--config`, and its parsed
    values.
    """
    if verb == "train" and option(argv, "--tasks") is not None:
        return _several(argv)
    function, config, default, name = _verb(verb), option(argv, "--config"), None, ""
    cls, objective, home = function.settings, None, None  # type: ignore[attr-defined]
    # train may do without one only by --tasks
    optional = verb != "train" and next(
        f.default is None for f in fields(cls) if f.name == "objective"
    )
    if config is not None:
        default = read_config(Path(config), cls)
        objective, name = type(default.objective), f"--config {config}"
        if tasks := getattr(default, "tasks", ()):
            known = [type(task.objective) for task in tasks if task.objective is not None]
            objective, home = None, _home_of(known[0]) if known else None
        else:
            home = _home_of(objective)
        argv = [
            w
            for i, w in enumerate(argv)
            if not w.startswith("--config") and argv[i - 1 : i] != ["--config"]
        ]
    elif not optional or (argv and not argv[0].startswith("-")):
        domain = domain_of(option(argv, "--data") or "", "index.json") or domain_of_checkpoint(
            option(argv, "--init")
        )
        name, home, objective, argv = choose(f"sciforge {verb}", "objectives", argv, domain)
    choices = (
        {} if home is None else {"objective": objective, "model": home.models, "codec": home.codec}
    )
    text = summary_of(objective) if objective else summary_of(cls)
    return function, _spec_values(verb, name, parameter, argv, choices, default, text)


def _several(argv: list[str]) -> tuple[Callable, dict[str, Any]]:
    """Return `train` and its values where the tasks stand in a file."""
    from sciforge.core.domain import get_domain

    if not argv[0].startswith("-"):
        raise ConfigError(f"--tasks names the objectives; leave out {argv[0]!r}")
    path, argv = take_option(argv, "--tasks")
    for name in ("--data", "--config"):
        if option(argv, name) is not None:
            raise ConfigError(f"--tasks says what {name} would; leave one of them out")
    tasks, name = read_tasks(Path(path or ""))
    home = get_domain(name)
    choices = {"model": home.models, "codec": home.codec, "tasks": tasks}
    text = "Train one network on several tasks at once."
    return _verb("train"), _spec_values("train", "--tasks FILE", "run", argv, choices, text=text)


def _home_of(objective: type) -> Any:
    from sciforge.core.domain import offers

    return next(home for home, known in offers("objectives").values() if known is objective)


def _spec_values(
    verb: str,
    name: str,
    parameter: str,
    argv: list[str],
    choices: Mapping[str, Any],
    default: Any = None,
    text: str = "",
) -> dict[str, Any]:
    """Return the parsed values of a verb whose settings are one object."""
    function = _verb(verb)
    cls = function.settings  # type: ignore[attr-defined]
    tasks = choices.get("tasks")
    choices = {key: value for key, value in choices.items() if key != "tasks"}
    spec = Spec(cls, argv, choices, default)
    if "tasks" in spec_names(cls):
        _with_tasks(spec, tasks or getattr(default, "tasks", None) or ())
    # would be gone when the command ends
    temporary = [f for f in spec.flags if f.name == "out" and f.default is None]
    spec.flags = [
        replace(f, default=MISSING, hint=Path) if f in temporary else f for f in spec.flags
    ]
    plain = inspect.unwrap(function)
    table = [
        f
        for f in verb_flags(function)
        if f.name in ("input", "target", "split", "group") and f.name not in spec_names(cls)
    ]
    extra = [*table, *([] if verb == "train" else _printing(verb, cls))]
    return _parsed(
        f"sciforge {verb} {name}".rstrip(),
        plain,
        argv,
        spec,
        parameter,
        text or summary_of(cls),
        extra,
    )


def _with_tasks(spec: Spec, tasks: tuple[Any, ...]) -> None:
    """Let a description's tasks be those of a file; without them its data must be typed."""

    def build(values: dict[str, Any]) -> None:
        values["tasks"] = tasks

    spec.builders.append(build)
    hidden = {"tasks", "data"} if tasks else {"tasks"}
    spec.flags = [
        replace(flag, default=MISSING) if flag.name == "data" and flag.default is None else flag
        for flag in spec.flags
        if flag.name not in hidden
    ]
    if not tasks:
        spec.flags.append(TASKS)
        spec.builders.insert(0, lambda values: values.pop("cli/tasks"))


def spec_names(cls: type) -> set[str]:
    """Return the names of the fields of a settings class."""
    return {field.name for field in fields(cls)}


def _label_efficiency(argv: list[str]) -> int:
    return _print(*_described("label-efficiency", "spec", argv))


def _transfer(argv: list[str]) -> int:
    return _print(*_described("transfer", "spec", argv))


def _schedules(argv: list[str]) -> int:
    return _print(*_described("schedules", "spec", argv))


def _forgetting(argv: list[str]) -> int:
    domain = domain_of(option(argv, "--new") or "", "index.json")
    given, rest = take_option(argv, "--objective")
    rest = _checkpoint_first(rest)
    head = [given] if given else [w for w in rest if w in HELP]
    name, _, objective, _ = choose("sciforge forgetting --objective", "objectives", head, domain)
    title = f"--objective {name}"
    return _print(
        _verb("forgetting"),
        _spec_values("forgetting", title, "spec", rest, {"objective": objective}),
    )


def _distill(argv: list[str]) -> int:
    from sciforge.core.domain import get_domain

    domain = domain_of_checkpoint(argv[0]) if argv and not argv[0].startswith("-") else None
    choices = (
        {"model": get_domain(domain).models, "codec": get_domain(domain).codec} if domain else {}
    )
    return _print(_verb("distill"), _spec_values("distill", "", "spec", argv, choices))


def _checkpoint_first(argv: list[str]) -> list[str]:
    """Return the words with `--init` before the checkpoints that stand before all options.

    >>> _checkpoint_first(["a", "b", "--curve"]), _checkpoint_first(["--init", "a"])
    (['--init', 'a', 'b', '--curve'], ['--init', 'a'])
    """
    return ["--init", *argv] if argv and not argv[0].startswith("-") else argv


def _experiment(verb: str, argv: list[str]) -> int:
    if verb == "prune":
        argv = _checkpoint_first(argv)
    return _print(_verb(verb), _spec_values(verb, "", "spec", argv, {}))


# Installation -------------------------------------------------------------------------------------


def _doctor(argv: list[str]) -> int:
    from sciforge import doctor

    report = doctor.doctor(**_parsed("sciforge doctor", doctor.doctor, argv))
    output.print_text(report.text())
    return 0 if report.healthy else 1


def _demo(argv: list[str]) -> int:
    from sciforge import demo

    if argv and not argv[0].startswith("-"):
        argv = ["--domain", *argv]
    return demo.demo(**_parsed("sciforge demo", demo.demo, argv))
