"""Heat transfer: a Nusselt law pretrained on published correlations, specialised with three to
twenty measurements.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sciforge.core.data.duplicate_audit import AuditNearDuplicates
from sciforge.core.domain import Domain
from sciforge.core.files.tables import Section
from sciforge.heat.data.campaigns import Campaigns
from sciforge.heat.data.codec import HeatCodec
from sciforge.heat.data.fingerprint import FINGERPRINT
from sciforge.heat.data.measurements import Measurements
from sciforge.heat.evaluation.baselines import BASELINES
from sciforge.heat.evaluation.laws import LAWS
from sciforge.heat.inference.inputs import PointInputs
from sciforge.heat.inference.law_formula import LawFormula
from sciforge.heat.inference.predictions import NextExperiment, PredictedNusselt
from sciforge.heat.model.nusselt_net import MODELS, NusseltConfig, NusseltNet
from sciforge.heat.objectives.campaign_pretraining import CampaignEvidence
from sciforge.heat.objectives.nusselt import Nusselt


def _demo(folder: Path, find: Callable[[str], Path], full: bool = False) -> Section:
    from sciforge.heat.demo import demo

    return demo(folder, find, full)


DOMAIN = Domain(
    name="heat",
    summary=(
        "a Nusselt law: published correlations, corrected by few measured points, with intervals"
    ),
    preparers={"measurements": Measurements, "campaigns": Campaigns},
    codec=HeatCodec(),
    models=MODELS,
    objectives={"nusselt": Nusselt, "campaign-evidence": CampaignEvidence},
    outputs={"nusselt": PredictedNusselt, "formula": LawFormula, "next-experiment": NextExperiment},
    baselines=BASELINES,
    audits={"near-duplicates": AuditNearDuplicates},
    laws=LAWS,
    demo=_demo,
    shardable=False,
    fingerprint=FINGERPRINT,
    inputs=PointInputs(),
)

# NusseltLaw brings scikit-learn, which most verbs do not need.
_LATER = {
    "HeatWarning": "inference.estimator",
    "NusseltLaw": "inference.estimator",
    "WallNusseltLaw": "inference.wall_law",
    "convert": "data.reference_basis",
    "read_table": "data.readers",
    "CORRELATIONS": "correlations.library",
    "get_correlation": "correlations.library",
}

__all__ = [
    "DOMAIN",
    "AuditNearDuplicates",
    "CampaignEvidence",
    "HeatCodec",
    "Nusselt",
    "NusseltConfig",
    "NusseltNet",
]
__all__ += [
    "Campaigns",
    "LawFormula",
    "Measurements",
    "NextExperiment",
    "PredictedNusselt",
    *_LATER,
]


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"sciforge.heat.{_LATER[name]}"), name)
    raise AttributeError(f"module 'sciforge.heat' has no attribute {name!r}")
