"""Atoms: an E(3)-equivariant potential, pretrained on cheap labels, fine-tuned on a few
expensive ones.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from sciforge.atoms.data.augmentations import AUGMENTATIONS, known_labels
from sciforge.atoms.data.codec import AtomsCodec
from sciforge.atoms.data.fingerprint import FINGERPRINT
from sciforge.atoms.data.structures import Structures
from sciforge.atoms.evaluation.baselines import BASELINES
from sciforge.atoms.evaluation.laws import LAWS
from sciforge.atoms.inference import methods
from sciforge.atoms.inference.active_learning import Uncertain
from sciforge.atoms.inference.embeddings import embed
from sciforge.atoms.inference.energies import Energies
from sciforge.atoms.inference.export import Export
from sciforge.atoms.inference.inputs import StructureInputs
from sciforge.atoms.model.potential import MODELS, Potential, PotentialConfig
from sciforge.atoms.objectives.energy_forces import EnergyForces
from sciforge.atoms.objectives.self_supervised import Denoise, MaskedElements
from sciforge.core.data.duplicate_audit import AuditNearDuplicates
from sciforge.core.domain import Domain
from sciforge.core.files.tables import Section
from sciforge.structures.labelling.label import Label
from sciforge.structures.labelling.sample import Sample


def _demo(folder: Path, find: Callable[[str], Path], full: bool = False) -> Section:
    from sciforge.atoms.demo import demo  # brings ASE's calculators, which most verbs do not need

    return demo(folder, find, full)


DOMAIN = Domain(
    name="atoms",
    summary=(
        "an equivariant potential: energies, forces and stress of molecules and crystals from few"
        " expensive labels"
    ),
    preparers={"structures": Structures},
    codec=AtomsCodec(),
    models=MODELS,
    objectives={
        "energy-forces": EnergyForces,
        "denoise": Denoise,
        "masked-elements": MaskedElements,
    },
    outputs={"energies": Energies, "uncertain": Uncertain, "export": Export},
    laws=LAWS,
    baselines=BASELINES,
    audits={"near-duplicates": AuditNearDuplicates},
    tools={"label": Label, "sample": Sample},
    demo=_demo,
    shardable=False,
    augmentations=AUGMENTATIONS,
    embed=embed,
    labels=known_labels,
    fingerprint=FINGERPRINT,
    inputs=StructureInputs(),
    methods={
        "calculator": methods.calculator,
        "relax": methods.relax,
        "run_md": methods.run_md,
        "embed": methods.embed,
    },
)

# Named on demand: ASE's calculators are slow to import, and most verbs need none.
_LAZY = {
    "Calculator": "atoms.inference.calculator",
    "Committee": "atoms.inference.uncertainty",
    "Laplace": "atoms.inference.uncertainty",
    "Structure": "structures.structure",
    "XtbDynamics": "structures.labelling.xtb_dynamics",
    "calibrated": "atoms.inference.uncertainty",
    "read_structures": "structures.readers",
    "reliabilities": "atoms.inference.calibration",
    "relax": "atoms.simulation.dynamics",
    "run_md": "atoms.simulation.dynamics",
    "write_extxyz": "structures.extxyz",
}

__all__ = [
    "DOMAIN",
    "AuditNearDuplicates",
    "AtomsCodec",
    "Calculator",
    "Committee",
    "Denoise",
    "Energies",
    "EnergyForces",
    "Export",
    "Label",
    "Laplace",
    "MaskedElements",
    "Potential",
    "PotentialConfig",
    "Sample",
    "Structure",
    "Structures",
    "Uncertain",
    "XtbDynamics",
    "calibrated",
    "read_structures",
    "reliabilities",
    "relax",
    "run_md",
    "write_extxyz",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"sciforge.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
