"""Molecules: generation that obeys valence by construction, and property prediction with few
labels.
"""

from collections.abc import Callable
from pathlib import Path

from sciforge.core.data.duplicate_audit import AuditNearDuplicates
from sciforge.core.domain import Domain
from sciforge.core.files.tables import Section
from sciforge.molecules.data.augmentations import AUGMENTATIONS, embed, known_labels
from sciforge.molecules.data.codec import MoleculeCodec
from sciforge.molecules.data.fingerprint import FINGERPRINT
from sciforge.molecules.data.prepare import Molecules
from sciforge.molecules.evaluation.baselines import BASELINES
from sciforge.molecules.evaluation.laws import LAWS
from sciforge.molecules.evaluation.score import Score, ScoreResult
from sciforge.molecules.generation.constraints import Constraints
from sciforge.molecules.generation.sampler import Sampling
from sciforge.molecules.inference.generated import GeneratedMolecules
from sciforge.molecules.inference.generation import Generate, generate
from sciforge.molecules.inference.inputs import MoleculeInputs
from sciforge.molecules.inference.likelihoods import Likelihoods, likelihoods
from sciforge.molecules.inference.predictions import PredictedProperties
from sciforge.molecules.inference.scoring import score
from sciforge.molecules.model.molecule_transformer import MODELS, MoleculeNet, MoleculeNetConfig
from sciforge.molecules.objectives.generation import Grow
from sciforge.molecules.objectives.properties import Properties
from sciforge.molecules.objectives.self_supervised import (
    DescriptorsAndMasked,
    MaskedAtoms,
    PredictDescriptors,
)


def _demo(folder: Path, find: Callable[[str], Path], full: bool = False) -> Section:
    from sciforge.molecules.demo import demo

    return demo(folder, find, full)


DOMAIN = Domain(
    name="molecules",
    summary=(
        "molecules under hard valence rules: generation, and property prediction from few labels"
    ),
    preparers={"molecules": Molecules},
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
    audits={"near-duplicates": AuditNearDuplicates},
    tools={"score": Score},
    demo=_demo,
    laws=LAWS,
    augmentations=AUGMENTATIONS,
    embed=embed,
    labels=known_labels,
    fingerprint=FINGERPRINT,
    inputs=MoleculeInputs(),
    methods={"generate": generate, "likelihoods": likelihoods, "score": score},
)

__all__ = [
    "DOMAIN",
    "AuditNearDuplicates",
    "Constraints",
    "DescriptorsAndMasked",
    "Generate",
    "GeneratedMolecules",
    "Grow",
    "Likelihoods",
    "MaskedAtoms",
    "MoleculeCodec",
    "MoleculeNet",
    "MoleculeNetConfig",
    "Molecules",
    "PredictDescriptors",
    "PredictedProperties",
    "Properties",
    "Sampling",
    "Score",
    "ScoreResult",
    "generate",
]
