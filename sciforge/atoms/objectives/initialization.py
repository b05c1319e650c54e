"""The first moment of training: reference energies in closed form, and a guard against labels in
the wrong unit.

Users of larger potentials keep meeting a fine-tuning that starts far above the error of the loaded
model, since the reference energies were not carried over or the unit differs; here both are looked
at before the first step.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from sciforge.atoms.data.reference_basis import fit_reference
from sciforge.core.domain import Record
from sciforge.core.training.evaluation import as_array, batches, evaluation
from sciforge.errors import ConfigError

MOST = 512  # records looked at; a fit of a few references needs no more
# What labels in another unit look like to a model that thinks in eV and angstrom.
FACTORS = {
    27.211386: "eV/angstrom converted as if they were hartree/angstrom",
    51.422067: "eV/angstrom converted as if they were hartree/bohr",
    23.060548: "kcal/mol taken for eV",
    96.485332: "kJ/mol taken for eV",
    1.889726: "eV/angstrom converted as if they were eV/bohr",
    1 / 27.211386: "hartree taken for eV",
    1 / 51.422067: "hartree/bohr taken for eV/angstrom",
    1 / 23.060548: "eV converted as if they were kcal/mol",
    1 / 1.889726: "eV/bohr taken for eV/angstrom",
    -1.0: "gradients taken for forces (the sign is wrong)",
}


def start_potential(
    model: Any,
    objective: Any,
    codec: Any,
    records: Sequence[Record],
    engine: Any,
    known: Mapping,
    parent: Any,
) -> dict[str, Any]:
    """Set the references of a model and return what was found: fits, and the errors at step 0.

    Args:
        model: a potential, with the parent's weights where there is a parent.
        objective: an EnergyForces.
        codec: encodes.
        records: training records.
        engine: where to compute.
        known: slot of a level -> {atomic number: eV} from the prepared data.
        parent: the checkpoint started from, or None.

    Raises:
        ConfigError: the pretrained model explains almost nothing of the forces.
    """
    places = np.linspace(0, len(records) - 1, min(len(records), MOST)).astype(int)
    chosen = [records[int(i)] for i in places]
    slots = np.array([objective.slot(record.get("level", "")) for record in chosen])
    _learn_levels(model, sorted(set(slots.tolist()) | set(known)))
    model.elements_known[
        sorted({int(z) for record in chosen for z in record["numbers"]} | set(codec.elements))
    ] = 1.0
    if parent is None:
        for slot, energies in known.items():
            for element, energy in energies.items():
                model.set_reference(element, energy, slot)
        return {}
    before = model.references_eV()
    found = _outputs(model, objective, codec, chosen, engine)
    # denoising teaches no force in eV
    taught = any(isinstance(old, type(objective)) for old in parent.objectives)
    notes = _guard(objective, found, chosen) if taught else {}
    if objective.refit:
        above = found["energy_eV"] - [
            float(before[s, r["numbers"].astype(int)].sum())
            for s, r in zip(slots, chosen, strict=True)
        ]
        for slot in sorted(set(slots.tolist())):
            part = np.flatnonzero(slots == slot)
            notes |= _refit(model, slot, known.get(slot), [chosen[i] for i in part], above[part])
    return notes


def _learn_levels(model: Any, slots: Sequence[int]) -> None:
    """Give a level that the model has not met the readout of the first one, which is nearer than
    a random one.
    """
    with torch.no_grad():
        for slot in slots:
            if slot and not model.levels_known[slot] and model.levels_known[0]:
                model.level_embed.weight[slot] = model.level_embed.weight[0]
                for readout in model.readout:
                    readout[-1].weight[slot] = readout[-1].weight[0]
                    readout[-1].bias[slot] = readout[-1].bias[0]
            model.levels_known[slot] = 1.0


def _outputs(
    model: Any, objective: Any, codec: Any, records: Sequence[Record], engine: Any
) -> dict[str, np.ndarray]:
    parts: dict[str, list] = {}
    with evaluation(model, objective):
        for batch in batches(objective, codec, records, range(len(records)), 0, 32):
            for name, value in objective.predict(model, engine.move(batch)).items():
                parts.setdefault(name, []).append(as_array(value))
    return {name: np.concatenate(values) for name, values in parts.items()}


def _refit(
    model: Any, slot: int, prior: Mapping | None, records: Sequence[Record], above_eV: np.ndarray
) -> dict:
    """Fit the references of one level so that model and labels agree on average, nearest to the
    prior.
    """
    energy = np.array([float(record["energy_eV"]) for record in records])
    kept = np.flatnonzero(np.isfinite(energy))
    if not len(kept):
        return {}
    current = model.references_eV()[slot]
    elements = sorted({int(z) for i in kept for z in records[i]["numbers"]})
    counts = np.array([np.bincount(records[i]["numbers"], minlength=119) for i in kept])
    prior = {z: float((prior or {}).get(z, current[z])) for z in elements}
    fitted = fit_reference(counts, energy[kept] - above_eV[kept], isolated=prior)
    for element, value in fitted.energies.items():
        model.set_reference(element, value, slot)
    return {f"references_level_{slot}": fitted.report()}


def _guard(
    objective: Any, found: Mapping[str, np.ndarray], records: Sequence[Record]
) -> dict[str, float]:
    """Compare predicted and labelled forces before training; raise where they have nothing in
    common.
    """
    pairs = [(f, r["forces_eV_A"]) for f, r in zip(found["forces_eV_A"], records, strict=True)]
    pairs = [(f, t) for f, t in pairs if np.isfinite(t).all()]
    if not pairs:
        return {}
    predicted = np.concatenate([np.ravel(f) for f, _ in pairs]).astype(float)
    true = np.concatenate([np.ravel(t) for _, t in pairs])
    spread = float(np.mean(true**2))
    error = float(np.mean((predicted - true) ** 2))
    notes = {"step_0_force_mae_meV_A": 1e3 * float(np.abs(predicted - true).mean())}
    if spread == 0 or not objective.guard or 1 - error / spread >= objective.guard:
        return notes
    slope = float(predicted @ true / max(predicted @ predicted, 1e-300))
    likeness = float(
        predicted @ true / np.sqrt(max((predicted @ predicted) * (true @ true), 1e-300))
    )
    near = min(FACTORS, key=lambda f: abs(slope / f - 1))
    hint = "is the unit or the level of theory another? give --guard 0 to train all the same"
    if abs(likeness) > 0.7 and abs(slope / near - 1) < 0.4:
        hint = (
            f"labels are {slope:.3g} times what the model expects, as of {FACTORS[near]}; correct"
            " --units"
        )
    raise ConfigError(
        f"at step 0 the pretrained model is off by {1e3 * error**0.5:.0f} meV/angstrom where the"
        f" forces' own spread is {1e3 * spread**0.5:.0f}: it explains nothing of them; {hint}"
    )
