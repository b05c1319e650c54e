"""Draw docs/panels.png, the picture of the README: error against number of labels, ours beside the
best rival.

Every number is copied from a section of benchmarks/RESULTS.md as it is printed there; `check` (a
test runs it) looks each of them up. Run it as `python docs/make_panels.py`.
"""

from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "RESULTS.md"
OURS, UNTRAINED, RIVAL = "#0072B2", "#9aa0a6", "#D55E00"


@dataclass(frozen=True)
class Line:
    """A method's error at each number of labels.

    Args:
        name: in the legend of the panel.
        colour: OURS, UNTRAINED (the same net without pretraining) or RIVAL.
        values: as they are printed in RESULTS.md, one a number of labels; shorter where not
            measured.
        dashed: whether the line is dashed.
    """

    name: str
    colour: str
    values: tuple[str, ...]
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """One task.

    Args:
        title: domain and task.
        error: the label of the y axis.
        section: the heading of RESULTS.md below which the numbers stand.
        labels: numbers of labels.
        lines: the methods.
        score: whether RESULTS.md prints a score whose error is 1 less the score.
    """

    title: str
    error: str
    section: str
    labels: tuple[int, ...]
    lines: tuple[Line, ...]
    score: bool = False


PANELS = (
    Panel(
        "Genomes: E. coli genes",
        "1 - MCC",
        "### E. coli coding windows of 100 bp",
        (32, 128, 512),
        (
            Line("dna-bert-mini", OURS, (".71", ".71", ".73")),
            Line("untrained", UNTRAINED, (".07", ".18", ".32")),
            Line("boosting + frames", RIVAL, (".27", ".44", ".56")),
        ),
        score=True,
    ),
    Panel(
        "Atoms: acetylacetone",
        "force MAE, meV/Å",
        "### Few shots: acetylacetone at 300 K",
        (10, 50, 200),
        (
            Line("potential-mini", OURS, ("69.8", "43.1", "39.9")),
            Line("+ own GFN2 labels", OURS, ("35.3", "21.5", "19.2"), dashed=True),
            Line("untrained", UNTRAINED, ("111.1", "48.5", "41.6")),
            Line("gdml", RIVAL, ("167.9", "35.8", "20.0")),
        ),
    ),
    Panel(
        "Molecules: solubility",
        "RMSE, log mol/l",
        "### Few labels of properties",
        (50, 100, 200, 902),
        (
            Line("encoder-mini", OURS, ("1.124", ".900", ".830", ".697")),
            Line("best of tree models", RIVAL, ("1.341", "1.092", ".980", ".867")),
        ),
    ),
    Panel(
        "Heat: ribbed channels",
        "median error, %",
        "### Few points",
        (3, 5, 10, 20, 50),
        (
            Line("nusselt-ribbed", OURS, ("4.7", "4.5", "4.0", "3.3", "2.8")),
            Line("untrained", UNTRAINED, ("13.6", "9.5", "5.0", "3.4", "2.5")),
            Line("best of 11 rivals", RIVAL, ("7.8", "7.8", "5.9", "4.0", "2.5")),
        ),
    ),
    Panel(
        "Images: Fashion-MNIST",
        "1 - accuracy",
        "### Few labels (`python benchmarks/images_few_labels.py",
        (100, 500, 2000),
        (
            Line("vit-mini", OURS, (".75", ".82", ".86")),
            Line("untrained", UNTRAINED, (".71", ".78", ".82")),
            Line("HOG", RIVAL, (".73", ".81")),
        ),
        score=True,
    ),
    Panel(
        "Text: fake hotel reviews",
        "1 - AUC",
        "### General -> hotel reviews",
        (100, 200),
        (
            Line("modern-mini", OURS, (".897", ".928")),
            Line("untrained", UNTRAINED, (".897", ".932")),
            Line("TF-IDF", RIVAL, (".880", ".920")),
        ),
        score=True,
    ),
)


def section_of(heading: str) -> str:
    """Return the text below a heading of RESULTS.md, up to the next of the same level; raises
    ValueError without one.
    """
    text = RESULTS.read_text(encoding="utf-8")
    level = heading.split(" ")[0]
    if (start := text.find(f"\n{heading}")) < 0:
        raise ValueError(f"{RESULTS} has no heading {heading!r}; correct docs/make_panels.py")
    body = text[start + 1 :]
    ends = [end for mark in (level, level[:-1]) if (end := body.find(f"\n{mark} ", 1)) > 0]
    return body[: min(ends, default=len(body))]


def check() -> None:
    """Raise ValueError where a number of the picture does not stand in its section of
    RESULTS.md.
    """
    for panel in PANELS:
        text = section_of(panel.section)
        for line in panel.lines:
            for value in line.values:
                if f" {value} " not in text.replace("**", "").replace("|", " ").replace("/", " / "):
                    raise ValueError(
                        f"{panel.title}, {line.name}: {value} is not in {panel.section!r}; draw"
                        " anew"
                    )


def draw(out: Path) -> Path:
    """Draw the panels in a row.

    Args:
        out: the PNG file.

    Returns:
        its path.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    check()
    pyplot.rcParams |= {"font.size": 8.5, "axes.spines.top": False, "axes.spines.right": False}
    figure, axes = pyplot.subplots(1, len(PANELS), figsize=(13.6, 2.75), layout="constrained")
    for axis, panel in zip(axes, PANELS, strict=True):
        for line in panel.lines:
            values = [1 - float(value) if panel.score else float(value) for value in line.values]
            style = {
                "color": line.colour,
                "ls": "--" if line.dashed else "-",
                "lw": 2 if line.colour == OURS else 1.4,
            }
            axis.plot(
                panel.labels[: len(values)], values, marker="o", ms=3.5, label=line.name, **style
            )
        axis.set_xscale("log")
        axis.set_xticks(panel.labels, [str(n) for n in panel.labels])
        axis.minorticks_off()
        axis.set_ylim(0, None)
        axis.set_title(panel.title, fontsize=9, fontweight="bold", loc="left")
        axis.set_ylabel(panel.error, labelpad=2)
        axis.legend(
            frameon=False, fontsize=7.5, handlelength=1.4, labelspacing=0.25, borderaxespad=0.1
        )
    figure.supxlabel("number of labels", fontsize=8.5)
    figure.savefig(out, dpi=110)
    return out


if __name__ == "__main__":
    print(draw(Path(__file__).with_name("panels.png")))
