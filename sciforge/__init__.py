"""sciforge: pretrain once on plentiful scientific data, specialise with little."""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "sciforge.api": ("prepare", "train", "fisher", "evaluate", "curve", "predict", "check", "audit", "load"),
    "sciforge.core.training.run": (
        "Run", "Schedule", "All", "Only", "LoRA", "L2SP", "EWC", "Replay", "Subset", "Private", "Hardware",
    ),
    "sciforge.errors": (
        "SciforgeError", "DataError", "ConfigError", "CheckpointError", "DivergedError", "MissingExtra",
    ),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import sciforge` stays fast and does not import torch."""
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'sciforge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
