"""Molecules: generation that obeys valence by construction, and property prediction with few labels."""

from collections.abc import Callable
from pathlib import Path

from sciforge.core.domain import Domain
from sciforge.core.report import Section
from sciforge.molecules.augmentations import AUGMENTATIONS, embed, known_labels
from sciforge.molecules.baselines import BASELINES
from sciforge.molecules.codec import MoleculeCodec
from sciforge.molecules.constraints import Constraints
from sciforge.molecules.generate import Generate, generate
from sciforge.molecules.growing import Grow
from sciforge.molecules.laws import LAWS
from sciforge.molecules.likelihood import Likelihoods
from sciforge.molecules.model import MODELS, MoleculeNet, MoleculeNetConfig
from sciforge.molecules.outputs import PredictedProperties
from sciforge.molecules.prepare import PrepareMolecules
from sciforge.molecules.pretraining import DescriptorsAndMasked, MaskedAtoms, PredictDescriptors
from sciforge.molecules.properties import Properties
from sciforge.molecules.sampler import Sampling
from sciforge.molecules.score import Score


def _demo(folder: Path, find: Callable[[str], Path]) -> Section:
    from sciforge.molecules.demo import demo  # brings RDKit's drawing, which most verbs do not need

    return demo(folder, find)


DOMAIN = Domain(
    name="molecules",
    summary="molecules under hard valence rules: generation, and property prediction from few labels",
    preparers={"molecules": PrepareMolecules},
    codec=MoleculeCodec(),
    models=MODELS,
    objectives={
        "grow": Grow,
        "descriptors": PredictDescriptors,
        "masked-atoms": MaskedAtoms,
        "descriptors-masked": DescriptorsAndMasked,
        "properties": Properties,
    },
    outputs={"generate": Generate, "likelihoods": Likelihoods, "properties": PredictedProperties},
    baselines=BASELINES,
    tools={"score": Score},
    demo=_demo,
    laws=LAWS,
    augmentations=AUGMENTATIONS,
    embed=embed,
    labels=known_labels,
)

__all__ = [
    "DOMAIN",
    "Constraints",
    "Generate",
    "Grow",
    "MoleculeCodec",
    "MoleculeNet",
    "MoleculeNetConfig",
    "PrepareMolecules",
]
__all__ += ["PredictedProperties", "Properties", "Sampling", "Score", "generate"]
