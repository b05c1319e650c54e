"""Molecules: generation that obeys valence by construction, and property prediction with few labels."""

from sciforge.core.domain import Domain
from sciforge.molecules.codec import MoleculeCodec
from sciforge.molecules.growing import Grow
from sciforge.molecules.model import MODELS, MoleculeNet, MoleculeNetConfig
from sciforge.molecules.prepare import PrepareMolecules
from sciforge.molecules.pretraining import DescriptorsAndMasked, MaskedAtoms, PredictDescriptors

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
    },
)

__all__ = ["DOMAIN", "Grow", "MoleculeCodec", "MoleculeNet", "MoleculeNetConfig", "PrepareMolecules"]
