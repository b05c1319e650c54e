"""Formats of checkpoint.json: each older one is brought to the present by a pure function, pinned
by golden checkpoints.

A format that ships is never changed. To make a new one, raise FORMAT, add the function from the
last format to UPGRADES, and write golden checkpoints of it (tests/golden/make.py).
"""

from collections.abc import Callable, Mapping
from typing import Any

FORMAT = 2

# Format 1 -> 2, the pass over names: type -> its new name, and new type -> {old field: new field}.
_TYPES_2 = {
    "All": "Full",
    "Only": "Freeze",
    "Private": "DPSGD",
    "Sparse": "Pruning",
    "ModernConfig": "ModernBertConfig",
    "Campaigns": "CampaignEvidence",
}
_FIELDS_2 = {
    "Schedule": {"rate": "lr", "final": "min_lr_ratio", "shape": "kind", "average": "ema_decay"},
    "Full": {"trunk_rate": "backbone_lr_mult"},
    "Run": {
        "adapt": "finetuning",
        "anchor": "regularization",
        "private": "dp_sgd",
        "sparse": "pruning",
        "retain": "retention",
    },
    "Regress": {"spread": "std"},
    "RegressImages": {"spread": "std"},
    "RateDocuments": {"spread": "std"},
    "ImageCodec": {"deviation": "std"},
    "InpaintPatches": {"asked": "decoded_share"},
    "DetectObjects": {"most": "max_detections"},
    "MoleculeCodec": {"spreads": "stds"},
    "Properties": {"spreads": "stds", "hold": "descriptor_weight"},
    "PredictDescriptors": {"spread": "std"},
    "DescriptorsAndMasked": {"spread": "std"},
    "Grow": {"told_share": "condition_share"},
}
# Format 1 -> 2: last part of a tensor's name -> its new one. The files keep their digests, so names
# change when they are read.
_TENSORS_2 = {"spread_P": "std_P", "target_spread_K": "target_std_K"}


def _renamed(value: Any, types: Mapping[str, str], fields: Mapping[str, Mapping[str, str]]) -> Any:
    """Return plain JSON values with the types and fields of every dataclass in them renamed."""
    if isinstance(value, list):
        return [_renamed(item, types, fields) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("type")
    if not isinstance(kind, str):
        return {key: _renamed(item, types, fields) for key, item in value.items()}
    kind = types.get(kind, kind)
    names = fields.get(kind, {})
    rest = {key: item for key, item in value.items() if key != "type"}
    return {
        "type": kind,
        **{names.get(key, key): _renamed(item, types, fields) for key, item in rest.items()},
    }


def upgrade_1(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint.json of format 1 in format 2: settings by the names of the field.

    >>> old = {"format": 1, "run": {"type": "Run", "adapt": {"type": "Only", "pattern": "a"}}}
    >>> upgrade_1(old)["run"]
    {'type': 'Run', 'finetuning': {'type': 'Freeze', 'pattern': 'a'}}
    """
    settings = ("run", "codec", "model", "objectives")
    return {
        k: _renamed(v, _TYPES_2, _FIELDS_2) if k in settings else v for k, v in body.items()
    } | {"format": 2}


UPGRADES: Mapping[int, Callable[[Mapping[str, Any]], dict[str, Any]]] = {1: upgrade_1}


def renamed_tensors(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return tensors of any format under their present names.

    >>> renamed_tensors({"heads.properties.spread_P": 1, "heads.class.bias": 2})
    {'heads.properties.std_P': 1, 'heads.class.bias': 2}
    """
    parts = {name: name.rpartition(".") for name in tensors}
    return {
        "".join((*parts[name][:2], _TENSORS_2.get(parts[name][2], parts[name][2]))): x
        for name, x in tensors.items()
    }


def upgraded(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint.json brought from its own format to the present one; an unknown format
    stays as it is.
    """
    body = dict(body)
    while type(number := body.get("format")) is int and number in UPGRADES:
        body = UPGRADES[number](body)
    return body
