"""How good a generator is: molecules drawn from it, scored beside real ones."""

from pathlib import Path
from typing import Any

from sciforge.core.training.model import Model
from sciforge.molecules.evaluation.score import Score, ScoreResult
from sciforge.molecules.inference.generation import generate


def score(
    model: Model,
    *,
    reference: Path | str,
    training: Path | str,
    num: int = 1000,
    seed: int = 0,
    **settings: Any,
) -> ScoreResult:
    """Draw molecules from a generator and score them; a method, `generator.score(reference=...,
    training=...)`.

    Args:
        model: a generator.
        reference: molecules that it has not seen.
        training: all molecules that it was trained on.
        num: how many to draw.
        seed: of the draws.
        settings: further fields of `Score`: fcd, fcd_num, reference_num, workers, ...
    """
    name = Path(f"{model.checkpoint.path.name}-generated")
    request = Score(
        file=name, reference=reference, training=training, num=num, seed=seed, **settings
    )
    return request.score(generate(model, num, seed=seed).smiles())
