"""Valid files of heat, and what reads them, for tests/core/test_hostile.py to damage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sciforge.heat.data.readers import read_table

HEAT = b"""# basis: ribbed wall, projected area, smooth diameter
# rig: one
Re,Pr,e_D,P_e,alpha_deg,W_H,Nu,fanning
10000,0.7,0.06,10,60,1,60.5,0.02
2e4,0.703,0.06,10,45,1,110,0.03
30000,0.7,0.0625,20,89,2,150.25,0.04
"""

# Name -> (a valid file, its ending, what reads it).
PARSERS: dict[str, tuple[bytes, str, Callable[[Path], Any]]] = {
    "heat": (HEAT, ".csv", lambda path: read_table(path, warn=False)),
}
