"""Molecules: generation that obeys valence by construction, and property prediction with few labels."""

from sciforge.core.domain import Domain
from sciforge.molecules.baselines import BASELINES
from sciforge.molecules.codec import MoleculeCodec
from sciforge.molecules.constraints import Constraints
from sciforge.molecules.generate import Generate, generate
from sciforge.molecules.growing import Grow
from sciforge.molecules.likelihood import Likelihoods
from sciforge.molecules.model import MODELS, MoleculeNet, MoleculeNetConfig
from sciforge.molecules.outputs import PredictedProperties
from sciforge.molecules.prepare import PrepareMolecules
from sciforge.molecules.pretraining import DescriptorsAndMasked, MaskedAtoms, PredictDescriptors
from sciforge.molecules.properties import Properties
from sciforge.molecules.sampler import Sampling
from sciforge.molecules.score import Score

DOMAIN = Domain(
    name="molecules",
    summary="molecules under hard valence rules: generation, and property prediction from few labels",
    preparers={"molecules": PrepareMolecules},
    codec=MoleculeCodec(),
    models=MODELS,
    objectives={
        "grow": Grow,
        "descriptors": PredictDescriptors,
        "masked": MaskedAtoms,
        "descriptors-masked": DescriptorsAndMasked,
        "properties": Properties,
    },
    outputs={"generate": Generate, "likelihoods": Likelihoods, "properties": PredictedProperties},
    baselines=BASELINES,
    tools={"score": Score},
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
__all__ += ["Sampling", "Score", "generate"]
