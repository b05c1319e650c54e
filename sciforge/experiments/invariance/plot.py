"""The plots of an invariance report: how far augmentations move the embedding, and what they
leave of the labels.
"""

from typing import Any

from sciforge.experiments.plots import BLACK, BLUE, GREY, ORANGE, frame, new_axes

FLOOR = 1e-17  # what did not move at all is drawn here, on the logarithmic axis
# Part of a LabelInformation -> legend, marker, colour; filled for the records as they are, hollow
# for augmented ones.
PARTS = {
    "nuisance": ("in what is scrambled", "o", BLUE, True),
    "nuisance_after": ("the same, augmented", "o", BLUE, False),
    "embedding": ("in the embedding", "s", ORANGE, True),
    "embedding_after": ("the same, augmented", "s", ORANGE, False),
}


def draw_shifts(result: Any, ax: Any = None) -> Any:
    """Draw the shift of the embedding under each augmentation with its 95 % interval."""
    axes = new_axes(ax, (5.2, 1.9 + 0.5 * len(result.effects)))
    for place, effect in enumerate(result.effects):
        shift = effect.shift
        axes.plot(
            [max(shift.low, FLOOR), max(shift.high, FLOOR)], [place] * 2, color=BLACK, linewidth=1
        )
        axes.plot(max(shift.value, FLOOR), place, "o", color=BLACK, markersize=5)
    axes.set(xscale="log", xlabel="shift of the embedding\n(in distances between two records)")
    axes.set_xlim(min(FLOOR, axes.get_xlim()[0]), max(10, axes.get_xlim()[1]))
    axes.axvline(1, color=GREY, linestyle=":", linewidth=1)
    _name_rows(axes, [effect.name for effect in result.effects])
    return axes


def draw_labels(result: Any, ax: Any = None) -> Any:
    """Draw the share of each label that a linear probe explains, with 95 % intervals and what
    chance reaches.
    """
    rows = [(effect, label) for effect in result.effects for label in effect.labels]
    axes = new_axes(ax, (6.2, 1.9 + 0.62 * len(rows)))
    for place, (_, label) in enumerate(rows):
        for number, (part, (text, marker, color, filled)) in enumerate(PARTS.items()):
            explained, height = getattr(label, part), place + 0.16 * (number - 1.5)
            axes.plot([explained.low, explained.high], [height] * 2, color=color, linewidth=1)
            face, legend = color if filled else "#FFFFFF", None if place else text
            axes.plot(
                explained.value, height, marker, color=color, markerfacecolor=face, label=legend
            )
        for part, height in (("nuisance", place - 0.16), ("embedding", place + 0.16)):
            chance, legend = (
                getattr(label, part).chance,
                (None if place or part == "embedding" else "chance"),
            )
            axes.plot([chance] * 2, [height - 0.14, height + 0.14], color=GREY, label=legend)
    axes.set_xlabel("share of the label that a linear probe explains")
    axes.axvline(0, color=GREY, linestyle=":", linewidth=1)
    _name_rows(axes, [f"{effect.name}\n({label.label})" for effect, label in rows])
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return axes


def _name_rows(axes: Any, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
    axes.set_ylim(len(names) - 0.5, -0.5)
    frame(axes, "x")
