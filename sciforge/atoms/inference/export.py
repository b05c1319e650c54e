"""A potential as one file that an engine of molecular dynamics can call without sciforge:
torch.export's .pt2.

The program differentiates itself: energy and the derivative by the edge vectors are traced together
(make_fx), so that the file holds plain tensor operations and no autograd. Load it with
`torch.export.load(path).module()`.

Inputs (N atoms, J places for neighbours, both free, each at least 2):
    number_N    int64 [N]        atomic numbers; 0 is a ghost, which has no energy and pads N.
    edge_A_NJ3  real  [N, J, 3]  pos[sender] + shift @ cell - pos[receiver], angstrom: from the
    receiving atom n to its
                                 j-th neighbour. Every pair in both directions; images of an atom
                                 are neighbours, too.
    sender_NJ   int64 [N, J]     which atom the neighbour is, 0 to N - 1; images count as their
    original.
A place left over holds a vector longer than the cutoff, e.g. (2 cutoffs, 0, 0), and any valid
sender; its share is exactly 0. A neighbour beyond the cutoff counts as none, so that a list with a
skin needs no filter. No vector may be 0.

Outputs, a tuple:
    atomic_eV_N       float64 [N]        energies of atoms, the free atoms included; the total
    energy is their sum. forces_eV_A_N3    real    [N, 3]     complete where all receivers of every
    sender are in the same call. virial_eV_33      real    [3, 3]     dE/d(strain), symmetric;
    stress = virial / volume (ASE's sign). gradient_eV_A_NJ3 real    [N, J, 3]  dE/d(edge_A), for
    engines that split the work and add forces themselves.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from sciforge.atoms.inference.predictions import need_level, need_potential
from sciforge.atoms.model.potential import Potential
from sciforge.core.files.output_files import about, write_whole
from sciforge.core.files.results import Result
from sciforge.core.files.settings import Settings
from sciforge.core.training.model import Model
from sciforge.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    import pandas as pd

# atoms and neighbours of the trace: unequal, and neither 0 nor 1, which torch takes for constants
TRACED = (7, 5)
CHECKED = ((7, 5), (23, 11), (2, 30))
AGREE = {torch.float32: 1e-6, torch.float64: 1e-12}
# what the file says of itself, read by `torch.export.load(path, extra_files={BESIDE: ""})`
BESIDE = "sciforge.json"
Program = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]


def packed_program(model: Potential, slot: int = 0, charge: int = 0, spin: int = 1) -> Program:
    """Return the function of the module's docstring.

    Args:
        model: in evaluation mode, in the precision and on the device of the inputs to come.
        slot: which level of theory.
        charge: total charge of the system, used by models with charges.
        spin: its multiplicity.
    """

    def program(
        number_N: Tensor, edge_A_NJ3: Tensor, sender_NJ: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            one = torch.zeros_like(number_N[:1])
            batch = {
                "number": number_N[None],
                "sender": sender_NJ,
                "graph": torch.zeros_like(number_N),
            }
            batch |= {"level": one + slot, "charge": one + charge, "spin": one + spin}
            batch["edge_A"] = edge_A_NJ3.detach()[None].requires_grad_()
            atomic, gradient = model.differentiated(batch, create_graph=False)
        atomic_N, gradient_NJ3 = atomic.detach()[0], gradient.detach()[0]
        forces_N3 = gradient_NJ3.sum(1).index_add(
            0, sender_NJ.flatten(), -gradient_NJ3.flatten(0, 1)
        )
        virial_33 = edge_A_NJ3.flatten(0, 1).T @ gradient_NJ3.flatten(0, 1)
        free_N = model.references_eV()[slot][number_N]
        return atomic_N.double() + free_N, forces_N3, (virial_33 + virial_33.T) / 2, gradient_NJ3

    return program


def example_inputs(
    model: Potential, atoms: int, places: int, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs of random atoms whose neighbours lie inside and outside the cutoff."""
    draw = torch.Generator().manual_seed(seed)
    known = model.elements_known.nonzero().flatten().cpu()
    number_N = known[torch.randint(len(known), (atoms,), generator=draw)]
    way = torch.nn.functional.normalize(
        torch.randn(atoms, places, 3, generator=draw, dtype=torch.float64), dim=-1
    )
    length = 1 + 1.2 * model.cutoff_A * torch.rand(
        atoms, places, 1, generator=draw, dtype=torch.float64
    )
    sender_NJ = torch.randint(atoms, (atoms, places), generator=draw)
    return (
        number_N.to(model.scale_eV.device),
        (way * length).to(model.scale_eV),
        sender_NJ.to(model.scale_eV.device),
    )


def exported(
    model: Potential, slot: int = 0, charge: int = 0, spin: int = 1
) -> torch.export.ExportedProgram:
    """Return the program of a potential for any number of atoms and neighbours, compared with the
    model before.

    Args:
        model: its weights are copied as they are.
        slot: of the level of theory, as for `packed_program`.
        charge: of the whole structure, in units of e.
        spin: its multiplicity.

    Raises:
        CheckpointError: the program does not give what the model gives (1e-6 relative in float32,
            1e-12 in float64).
    """
    moving = [p for p in model.parameters() if p.requires_grad]
    for parameter in moving:
        parameter.requires_grad_(False)
    try:
        program = packed_program(model, slot, charge, spin)
        inputs = example_inputs(model, *TRACED)
        # fills the cache of constant tables with real tensors before the trace makes fake ones
        program(*inputs)
        traced = make_fx(program, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*inputs)
        traced.graph.eliminate_dead_code()
        traced.recompile()
        atoms, places = torch.export.Dim("atoms", min=2), torch.export.Dim("neighbours", min=2)
        shapes = ({0: atoms}, {0: atoms, 1: places}, {0: atoms, 1: places})
        exported_program = torch.export.export(traced, inputs, dynamic_shapes=shapes)
        _require_equal(program, exported_program.module(), model)
    finally:
        for parameter in moving:
            parameter.requires_grad_(True)
    return exported_program


def _require_equal(program: Program, copy: Program, model: Potential) -> None:
    for seed, sizes in enumerate(CHECKED, 1):
        inputs = example_inputs(model, *sizes, seed)
        for wanted, found in zip(program(*inputs), copy(*inputs), strict=True):
            error = float((wanted - found).abs().max() / wanted.abs().max().clamp(min=1))
            if not error <= AGREE[model.scale_eV.dtype]:
                raise CheckpointError(
                    f"the exported program differs from the model by {error:.1e} at {sizes[0]}"
                    f" atoms with {sizes[1]} neighbours; export in float64, or report the versions"
                    " of sciforge and torch"
                )


@dataclass(frozen=True, kw_only=True)
class Export(Settings):
    """The potential as a program without sciforge (torch.export), for engines of molecular
    dynamics; saved as .pt2.

    It takes atomic numbers [N], edge vectors [N, J, 3] and neighbours [N, J] and gives energies of
    atoms, forces, the virial and the derivative by the edge vectors. The file states the
    conventions, the cutoff, the elements and where it comes from under `sciforge.json`.

    Args:
        precision: float32 or float64.
        level: level of theory, of a potential that knows several.
        charge: total charge, for a potential that takes charges; fixed in the file.
        spin: multiplicity 2S + 1, likewise.
    """

    precision: Literal["float32", "float64"] = "float32"
    level: str = ""
    charge: int = 0
    spin: int = 1

    def run(self, model: Model) -> "ExportedPotential":
        """Return the program.

        Raises:
            ConfigError: no potential, or a level of theory that it does not know.
            CheckpointError: the program does not give what the model gives.
        """
        objective = need_potential(model)
        need_level(objective, self.level, "")
        slot = objective.levels.index(self.level) if objective.levels else 0
        network = model.checkpoint.build().to(model.device, getattr(torch, self.precision))
        program = exported(network, slot, self.charge, self.spin)
        return ExportedPotential(program, {**self._facts(network), **about(self, model)})

    def _facts(self, network: Potential) -> dict[str, Any]:
        from ase.data import chemical_symbols

        elements = [chemical_symbols[int(z)] for z in network.elements_known.nonzero()]
        device = str(network.scale_eV.device)
        facts = {"cutoff_A": network.cutoff_A, "elements": elements, "device": device}
        return {**facts, "level": self.level, "precision": self.precision, "conventions": __doc__}


class ExportedPotential(Result):
    """A potential as a program of plain tensor operations.

    Args:
        program: what torch.export gave.
        about: cutoff, elements, conventions and where it comes from.
    """

    def __init__(self, program: torch.export.ExportedProgram, about: dict[str, Any]) -> None:
        self.program, self._about = program, about

    @property
    def about(self) -> dict[str, Any]:
        """Cutoff, elements, conventions and where the program comes from, as JSON values."""
        return self._about

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row: cutoff_A, elements, level, precision and device."""
        import pandas as pd

        names = ("cutoff_A", "elements", "level", "precision", "device")
        row = {name: self._about[name] for name in names}
        return pd.DataFrame([{**row, "elements": " ".join(row["elements"])}])

    def save(self, path: Path | str) -> Path:
        """Write the program, .pt2, and return its path.

        Raises:
            ConfigError: another suffix.
            DataError: the disk is full or may not be written.
        """
        path = Path(path)
        if path.suffix.lower() != ".pt2":
            raise ConfigError(f"{path}: the name decides the kind of file; end it with .pt2")
        beside = {BESIDE: json.dumps(self._about, indent=1)}
        return write_whole(
            path, lambda work: torch.export.save(self.program, work, extra_files=beside)
        )
