"""Molecules on request: what may be asked of a generator, in one settings class for Python and
the command line.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from sciforge.core.files.output_files import about
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError, did_you_mean
from sciforge.molecules.data.codec import MoleculeCodec
from sciforge.molecules.generation.constraints import Constraints
from sciforge.molecules.generation.sampler import Sampling, sample
from sciforge.molecules.generation.unmasked_validity import unmasked_validity
from sciforge.molecules.inference.generated import GeneratedMolecules
from sciforge.molecules.objectives.generation import Grow, condition_of

# stds from the training mean; beyond, few molecules were seen
LEARNT_STDS = 2.5


@dataclass(frozen=True, kw_only=True)
class Generate(Constraints, Sampling):
    """New molecules, every one valid and within every constraint; no draw is rejected.

    Args:
        num: how many.
        want: properties to steer to, as NAME=VALUE (logp=2.5), in Python also a dict; a wish, not a
            constraint.
        unmasked: how many to draw without the action mask, to measure how much of the validity is
            learnt; 0 for none.
    """

    num: int = 100
    want: tuple[str, ...] = ()
    unmasked: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "want", as_words(self.want))
        super().__post_init__()
        self.require(1, math.inf, "num")
        self.require(0, math.inf, "unmasked")

    def run(self, model: Model) -> GeneratedMolecules:
        """Draw the molecules.

        Raises:
            ConfigError: the checkpoint does not generate, cannot be steered so, or no molecule can
                meet the constraints.
            DataError: the scaffold cannot be read.
        """
        condition = condition_for(model, wishes_of(self.want))
        model.network.eval()
        constraints, sampling = _part(self, Constraints), _part(self, Sampling)
        drawn = sample(model.network, self.num, constraints, sampling, condition)
        learnt = (
            unmasked_validity(model.network, self.unmasked, sampling, condition)
            if self.unmasked
            else None
        )
        return GeneratedMolecules(drawn, about(self, model), learnt)


def generate(
    model: Model | Path | str, num: int = Generate.num, *, device: str = "auto", **settings: Any
) -> GeneratedMolecules:
    """Draw molecules that keep every constraint; a method of generators, `model.generate(50,
    scaffold=...)`.

    Args:
        model: a generator, or the path or name of one, such as molecules-mini.
        num: how many.
        device: of a generator that is opened here: auto, cpu or cuda.
        settings: the other fields of `Generate`: atoms, formula, scaffold, rings, forbidden, want,
            temperature, seed, ...

    Raises:
        ConfigError: the checkpoint does not generate, or no molecule can meet the constraints.
        DataError: the scaffold cannot be read.
    """
    names = [field.name for field in fields(Generate)]
    for name in settings:
        if name not in names:
            raise ConfigError(f"generate has no setting {name!r}; {did_you_mean(name, names)}")
    request = Generate(num=num, **settings)
    return request.run(opened(model, device))


def opened(model: Model | Path | str, device: str = "auto") -> Model:
    """Return a model, opened where a path or name is given."""
    if isinstance(model, Model):
        return model
    from sciforge import catalog

    return Model.load(catalog.locate(model), device)


def _part(request: Generate, kind: type) -> Any:
    return kind(**{field.name: getattr(request, field.name) for field in fields(kind)})


def need_policy(model: Model) -> Grow:
    """Return the generating objective of a checkpoint; raises ConfigError where it has none."""
    if not isinstance(model.objective, Grow):
        kind = type(model.objective).__name__
        raise ConfigError(
            f"{model.checkpoint.path} was trained for {kind}, not to generate; train it with `grow`"
        )
    return model.objective


def condition_for(model: Model, want: Mapping[str, float]) -> Tensor | None:
    """Return the condition [2 P] of wishes, None where the checkpoint knows no properties and none
    is wished.

    Raises:
        ConfigError: a wish is not among the properties that the checkpoint was conditioned on in
            training.
    """
    known, codec = need_policy(model).conditions, model.codec
    for name in want:
        if name not in known:
            raise ConfigError(
                f"{model.checkpoint.path} cannot be steered to {name!r};"
                f" {did_you_mean(name, known)}"
            )
    if not known:
        return None
    given = np.array([name in want for name in known])
    for name, value in want.items():
        if abs(_scaled(codec, name, value)) > LEARNT_STDS:
            place = codec.properties.index(name)
            reach = LEARNT_STDS * codec.stds[place]
            low, high = codec.means[place] - reach, codec.means[place] + reach
            warnings.warn(
                f"{name}={value:g} lies outside of the range that the generator learnt, about"
                f" {low:.3g} to {high:.3g}; the molecules may miss it widely",
                stacklevel=2,
            )
    return condition_of(np.array([_scaled(codec, name, want.get(name)) for name in known]), given)


def _scaled(codec: MoleculeCodec, name: str, value: float | None) -> float:
    place = codec.properties.index(name)
    return 0.0 if value is None else (value - codec.means[place]) / codec.stds[place]


def as_words(want: Any) -> Any:
    """Return wishes as NAME=VALUE words; a dict becomes such words, everything else stays as it is.

    >>> as_words({"logp": 2.5})
    ('logp=2.5',)
    """
    return (
        tuple(f"{name}={value}" for name, value in want.items())
        if isinstance(want, Mapping)
        else want
    )


def wishes_of(words: Sequence[str]) -> dict[str, float]:
    """Return NAME=VALUE words as a table; raises ConfigError for a word that is none.

    >>> wishes_of(["logp=2.5"])
    {'logp': 2.5}
    """
    wishes = {}
    for word in words:
        name, _, value = word.partition("=")
        if name in wishes:
            raise ConfigError(f"want names {name!r} twice; give one value")
        try:
            wishes[name] = float(value)
        except ValueError:
            raise ConfigError(
                f"want {word!r} is not NAME=VALUE; write logp=2.5 for instance"
            ) from None
        if not math.isfinite(wishes[name]):
            raise ConfigError(f"want {word!r} is not finite; give a number")
    return wishes
