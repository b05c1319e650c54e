"""sciforge: pretrain once on plentiful scientific data, specialise with little.

    import sciforge as sf
    model = sf.load("dna-bert-mini").fit(inputs, labels)
    model.predict(inputs)

The verbs (`prepare`, `train`, `fit`, `predict`, `label_efficiency`, ...) are those of the command
line; `genomes`, `atoms`, `molecules`, `heat`, `images` and `text` are the domains; `datasets` finds
bundled and published data by name.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_VERBS = (
    "prepare",
    "train",
    "fit",
    "fisher",
    "evaluate",
    "predict",
    "generate",
    "label",
    "sample",
    "score",
    "check",
    "audit",
    "label_efficiency",
    "transfer",
    "forgetting",
    "schedules",
    "invariance",
    "privacy",
    "prune",
    "distill",
    "export",
    "verify",
    "card",
)
_DOMAINS = ("genomes", "atoms", "molecules", "heat", "images", "text")
_HOMES = {
    "sciforge.api": (*_VERBS, "load"),
    "sciforge.core.training.run": (
        "Run",
        "Schedule",
        "Full",
        "Freeze",
        "LoRA",
        "L2SP",
        "EWC",
        "Replay",
        "Subset",
        "Task",
        "DPSGD",
        "Pruning",
        "Teacher",
        "Hardware",
    ),
    "sciforge.core.training.model": ("Model",),
    "sciforge.core.data.dataset": ("Dataset",),
    "sciforge.errors": (
        "SciforgeError",
        "DataError",
        "ConfigError",
        "CheckpointError",
        "DivergedError",
        "MissingExtra",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_MODULES = ("datasets", *_DOMAINS)
__all__ = sorted([*_HOME_OF, *_MODULES])  # noqa: PLE0604

if TYPE_CHECKING:
    from sciforge import atoms, datasets, genomes, heat, images, molecules, text  # noqa: F401
    from sciforge.api import *  # noqa: F403
    from sciforge.core.data.dataset import Dataset as Dataset
    from sciforge.core.training.model import Model as Model
    from sciforge.core.training.run import *  # noqa: F403
    from sciforge.errors import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import sciforge` stays fast and does not import torch."""
    if name in _MODULES:
        return importlib.import_module(f"sciforge.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'sciforge' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    if name in _VERBS:
        from sciforge.keywords import complete

        return complete(value)
    return value


def __dir__() -> list[str]:
    return __all__
