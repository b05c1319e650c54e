"""Settings of experiments: what is just allowed, and what is just beyond."""

import pytest

from sciforge.core.methods.pruning import Pruning
from sciforge.core.training.run import Subset
from sciforge.errors import ConfigError
from sciforge.experiments.compression.spec import Distill
from sciforge.experiments.label_efficiency.adaptation import Adaptation
from sciforge.experiments.label_efficiency.spec import LabelEfficiency
from sciforge.experiments.privacy.spec import Privacy
from sciforge.experiments.transfer.spec import Transfer

GIVEN = {
    Distill: {"checkpoint": "c", "data": "d", "model": "mini"},
    LabelEfficiency: {"data": "d", "init": "c"},
    Transfer: {"data": ("d", "e"), "init": "c"},
    Adaptation: {"data": "d"},
    Privacy: {"checkpoint": "c", "data": "d"},
    Subset: {"count": 1},
    Pruning: {},
}


@pytest.mark.parametrize(
    ("cls", "name", "allowed", "refused"),
    [
        (Distill, "seeds", (1, 1000), (0, 1001)),
        (LabelEfficiency, "seeds", (1,), (0, -1)),
        (LabelEfficiency, "sizes", ((0,), (4, 8)), ((), (-1,), (4, 4))),
        (Transfer, "seeds", (1, 1000), (0, 1001)),
        (Transfer, "labels", (0,), (-1,)),
        (Adaptation, "steps", (1,), (0,)),
        (Adaptation, "batch", (1,), (0,)),
        (Adaptation, "seeds", (1,), (0,)),
        (Adaptation, "lr", (0.0,), (-1e-9,)),
        (Privacy, "shadows", (8, 10), (6, 9)),
        (Privacy, "max_records", (0,), (-1,)),
        (Subset, "count", (1,), (0,)),
        (Subset, "seed", (0,), (-1,)),
        (Pruning, "share", (0.0, 0.999), (-0.001, 1.0)),
        (Pruning, "ramp", (0.0, 0.999), (-0.001, 1.0)),
        (Pruning, "cuts", (1,), (0,)),
        (Pruning, "scope", ("matrix",), ("matrices",)),
    ],
)
def test_bounds_of_settings(cls, name, allowed, refused):
    for value in allowed:
        assert getattr(cls(**{**GIVEN[cls], name: value}), name) == value
    for value in refused:
        with pytest.raises(ConfigError, match=name):
            cls(**{**GIVEN[cls], name: value})
