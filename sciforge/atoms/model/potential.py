"""The potential: an E(3)-equivariant graph network whose heavy work is matrix products on nodes.

Messages are gathered by one matrix product a block: with R_k(r) Y_m(r) of every edge in a matrix,
the sum over neighbours of R_k Y_m h_c is geometry @ features, and nothing of size edges x channels
is ever written. Radial functions and channels are mixed after the sum, on nodes (as in the atomic
cluster expansion, Drautz 2019, arXiv 1808.09298), where products of tensors then raise the body
order (as in MACE, Batatia et al. 2022, arXiv 2206.07697).

Legend: B graphs (1 when packed), A atoms of a graph (all atoms when packed), N = B * A nodes, J
neighbours, M components of the irreps 0e + 1o + 2e (irreps.py), K radial functions, C channels, P
rows of the coupling matrix. Layouts: `dense` has every atom of a molecule as neighbour of every
other (J = A, no indices); `packed` has all atoms of a batch in one row (B = 1) and their neighbours
by index. See codec.py.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from sciforge.atoms.data.codec import AtomsCodec
from sciforge.core.domain import Batch
from sciforge.core.files.settings import Settings
from sciforge.core.transfers import constant
from sciforge.errors import ConfigError
from sciforge.nn.equivariant import irreps, radial

# atomic number 0 is a ghost that pads molecules of unequal size, 119 a masked element
NUM_ELEMENTS = 120
MASKED = 119
REACH_A = 0.8  # nuclear repulsion acts below this share of the sum of covalent radii


@dataclass(frozen=True)
class PotentialConfig(Settings):
    """Sizes of a potential.

    Args:
        channels: width of every irrep.
        blocks: message-passing steps.
        order: largest angular momentum, 1 or 2.
        radial: radial functions.
        body: tensors multiplied on a node, 1 to 4: body order of one block less one.
        hidden: width of the readouts.
        levels: levels of theory that the model has room for.
        charges: whether total charge and spin are inputs; energies of separated parts then no
            longer add up.
        repulsion: whether the screened Coulomb repulsion of nuclei is added at short range.
    """

    channels: int = 64
    blocks: int = 2
    order: int = 2
    radial: int = 8
    body: int = 2
    hidden: int = 64
    levels: int = 4
    charges: bool = False
    repulsion: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, 4096, "channels", "hidden", "radial", "levels")
        self.require(1, 8, "blocks")
        self.require(1, irreps.MAX_ORDER, "order")
        self.require(1, 4, "body")

    def build(self, codec: AtomsCodec) -> "Potential":
        """Return a model with the codec's cutoff, scales and reference energies."""
        return Potential(self, codec)


@lru_cache(maxsize=64)
def _constant(name: str, order: int, out: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a table of the irreps in full precision; a buffer would have been rounded to
    float32 on the way.
    """
    if name == "coupling":  # [P, M * M]
        return torch.tensor(irreps.coupling(order, out), dtype=dtype, device=device)
    rows = [(l, 2 * l + 1) for _, _, l in irreps.paths(order, out)]
    if name == "path":  # [P] which path a row belongs to
        return torch.repeat_interleave(
            torch.arange(len(rows)), torch.tensor([n for _, n in rows])
        ).to(device)
    if name == "sum":  # [M, P] adds the paths of each component
        table, start = torch.zeros(irreps.components(out), sum(n for _, n in rows), dtype=dtype), 0
        for l, n in rows:
            table[irreps.span(l), start : start + n] = torch.eye(n, dtype=dtype)
            start += n
        return table.to(device)
    sizes = torch.arange(1, 2 * order + 2, 2)  # "irrep": [M] which irrep a component belongs to
    return torch.repeat_interleave(torch.arange(order + 1), sizes).to(device)


class Mix(nn.Module):
    """A linear map of the channels for each irrep, without bias, since a constant vector has no
    direction to point.

    The maps lie below one another in one matrix `weight` [(order + 1 - first) * inputs, outputs].
    """

    def __init__(self, order: int, inputs: int, outputs: int, first: int = 0) -> None:
        super().__init__()
        self.order, self.first, self.inputs = order, first, inputs
        self.weight = nn.Parameter(
            torch.randn((order + 1 - first) * inputs, outputs) * inputs**-0.5
        )

    def forward(self, x_MNI: Tensor) -> Tensor:
        """Return the features mixed over their channels, each order by itself [M, N, O]."""
        weight_LIO = self.weight.view(self.order + 1 - self.first, self.inputs, -1)
        if self.order == self.first:
            return x_MNI @ weight_LIO
        irrep_M = (
            _constant("irrep", self.order, 0, x_MNI.dtype, x_MNI.device)[self.first**2 :]
            - self.first
        )
        return torch.bmm(x_MNI, weight_LIO[irrep_M])


class Product(nn.Module):
    """The equivariant product of two tensors, channel by channel, every allowed path with a
    weight of its own.
    """

    def __init__(self, order: int, out: int, channels: int) -> None:
        super().__init__()
        self.order, self.out = order, out
        num_paths = len(irreps.paths(order, out))
        per_irrep = [
            sum(c == l for _, _, c in irreps.paths(order, out))
            for _, _, l in irreps.paths(order, out)
        ]
        self.weight = nn.Parameter(
            torch.randn(num_paths, channels) / torch.tensor(per_irrep)[:, None].sqrt()
        )

    def forward(self, x_MNC: Tensor, y_MNC: Tensor) -> Tensor:
        """Return the equivariant product of two features of each node."""
        size, nodes, channels = x_MNC.shape
        if self.out == 0:  # only like components meet: no outer product
            irrep_M = _constant("irrep", self.order, 0, x_MNC.dtype, x_MNC.device)
            norm_L = constant(
                [(2 * l + 1) ** -0.5 for l in range(self.order + 1)], x_MNC.device, x_MNC.dtype
            )
            weight_MC = (self.weight * norm_L[:, None])[irrep_M]
            return (x_MNC * y_MNC * weight_MC[:, None]).sum(0, keepdim=True)
        table = {"order": self.order, "out": self.out, "dtype": x_MNC.dtype, "device": x_MNC.device}
        outer = (x_MNC[:, None] * y_MNC[None]).view(size * size, nodes * channels)
        rows_PNC = (_constant("coupling", **table) @ outer).view(-1, nodes, channels)
        rows_PNC = rows_PNC * self.weight[_constant("path", **table)][:, None]
        return (_constant("sum", **table) @ rows_PNC.flatten(1)).view(-1, nodes, channels)


class Block(nn.Module):
    """One step of message passing: gather from neighbours, multiply on the node, update."""

    def __init__(self, config: PotentialConfig, first: bool, last: bool) -> None:
        super().__init__()
        width, order = config.channels, config.order
        self.first, self.order, self.out, self.radial = (
            first,
            order,
            0 if last else order,
            config.radial,
        )
        self.gather = Mix(order, config.radial * width, width)
        self.carry = None if first else Mix(order, config.radial * width, width, first=1)
        self.receive = nn.Embedding(NUM_ELEMENTS, width)
        self.split = Mix(order, width, 2 * width) if config.body > 1 else None
        outs = [order] * (config.body - 2) + [self.out]
        self.products = nn.ModuleList(Product(order, out, width) for out in outs[: config.body - 1])
        self.merge = Mix(self.out, width * (config.body + (not first)), width)
        self.scalar = nn.Sequential(
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width * (1 + self.out))
        )

    def forward(
        self, h_MNC: Tensor, geometry: Tensor, number_BA: Tensor, sender: Tensor | None
    ) -> Tensor:
        """Return the features [M', N, C] after the block; a first block gets and a last block
        gives scalars only.
        """
        size = irreps.components(self.out)
        x_MNC = self.gather(_gathered(geometry, h_MNC[:1], number_BA, sender, self.radial))
        if self.carry is not None:
            distances = geometry[:1] if sender is None else geometry[:, : self.radial]
            carried = self.carry(_gathered(distances, h_MNC[1:], number_BA, sender, self.radial))
            x_MNC = torch.cat([x_MNC[:1], x_MNC[1:] + carried])
        x_MNC = x_MNC * (1 + self.receive(number_BA)).flatten(0, 1)
        terms = [x_MNC[:size]]
        if self.split is not None:
            grown, right = self.split(x_MNC).chunk(2, -1)
            for product in self.products:
                grown = product(grown, right)
                terms.append(grown[:size])
        if not self.first:
            terms.append(h_MNC[:size])
        total = self.merge(torch.cat(terms, -1))
        scalars = total[0] + h_MNC[0] if self.first else total[0]
        update_NOC = self.scalar(scalars).view(scalars.shape[0], 1 + self.out, -1)
        scalars = (scalars + update_NOC[:, 0])[None]
        if self.out == 0:
            return scalars
        irrep_M = _constant("irrep", self.out, 0, total.dtype, total.device)[1:]
        return torch.cat([scalars, total[1:] * (1 + update_NOC.transpose(0, 1)[irrep_M])])


def _gathered(
    geometry: Tensor, h_MNC: Tensor, number_BA: Tensor, sender: Tensor | None, radial: int
) -> Tensor:
    """Return sums over neighbours of R_k Y_m h_c as [M, N, K * C]; one of geometry and h has a
    single component.
    """
    graphs, atoms = number_BA.shape
    width = h_MNC.shape[-1]
    if sender is None:  # geometry [M, B, A * K, J]
        most = max(len(geometry), len(h_MNC))
        h_MBAC = h_MNC.view(len(h_MNC), graphs, atoms, width)
        return torch.matmul(geometry, h_MBAC).view(most, graphs * atoms, -1)
    near = h_MNC.transpose(0, 1)[sender].flatten(2)  # [N, J, M * C]; geometry [N, M * K, J]
    found = torch.bmm(geometry, near)
    if len(h_MNC) > 1:
        return found.view(atoms, -1, len(h_MNC), width).permute(2, 0, 1, 3).flatten(2)
    return found.view(atoms, -1, radial * width).transpose(0, 1)


class Potential(nn.Module):
    """Energies, forces and stress of molecules and crystals; energies are sums over atoms, taken
    in float64.
    """

    def __init__(self, config: PotentialConfig, codec: AtomsCodec) -> None:
        super().__init__()
        self.config, self.cutoff_A = config, codec.cutoff_A
        width = config.channels
        self.embed = nn.Embedding(NUM_ELEMENTS, width)
        self.level_embed = nn.Embedding(config.levels, width)
        nn.init.zeros_(self.level_embed.weight)
        if config.charges:
            self.charge_embed = nn.Linear(2, width, bias=False)
            nn.init.zeros_(self.charge_embed.weight)
        last = config.blocks - 1
        self.blocks = nn.ModuleList(
            Block(config, first=t == 0, last=t == last) for t in range(config.blocks)
        )
        self.readout = nn.ModuleList(_readout(width, config) for _ in self.blocks)
        self.heads = nn.ModuleDict()
        self.register_buffer("scale_eV", torch.tensor(float(codec.force_eV_A or 1.0)))
        self.register_buffer("neighbours", torch.tensor(float(codec.neighbours or 10.0)))
        # Two float32 whose float64 sum is the reference energy, so that a cast of the model does
        # not round it.
        self.register_buffer("reference_eV", torch.zeros(2, config.levels, NUM_ELEMENTS))
        self.register_buffer("levels_known", torch.zeros(config.levels))
        self.register_buffer("elements_known", torch.zeros(NUM_ELEMENTS))
        self.elements_known[list(codec.elements)] = 1.0
        radii = torch.tensor([*radial.COVALENT_RADII_A, 0.2])
        self.register_buffer("radii_A", radii, persistent=False)

    def set_reference(self, element: int, energy_eV: float, level: int | None = None) -> None:
        """Set the energy of a free atom, at one level or at all."""
        where = slice(None) if level is None else level
        high = torch.tensor(energy_eV, dtype=torch.float32)
        self.reference_eV[0, where, element] = high
        self.reference_eV[1, where, element] = torch.tensor(
            energy_eV - float(high), dtype=torch.float32
        )

    def references_eV(self) -> Tensor:
        """Return the energies of free atoms [levels, elements] in float64."""
        return self.reference_eV.double().sum(0)

    def features(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """Return energies of atoms above their references [B, A] in eV, and the scalars [N, C]
        after each block.
        """
        number_BA, sender = batch["number"], batch.get("sender")
        distance, geometry = self._geometry(
            batch["edge_A"].to(self.scale_eV.dtype), dense=sender is None
        )
        level_N = batch["level"][batch["graph"]]
        h_NC = self.embed(number_BA).flatten(0, 1) + self.level_embed(level_N)
        if self.config.charges:
            h_NC = h_NC + self.charge_embed(_charge_and_spin(batch, h_NC.dtype))[batch["graph"]]
        h_MNC, energy_N, scalars = h_NC[None], 0.0, []
        for block, readout in zip(self.blocks, self.readout, strict=True):
            h_MNC = block(h_MNC, geometry, number_BA, sender)
            scalars.append(h_MNC[0])
            energy_N = energy_N + readout(h_MNC[0]).gather(1, level_N[:, None])[:, 0]
        energy_BA = self.scale_eV * energy_N.view_as(number_BA)
        if self.config.repulsion:
            energy_BA = energy_BA + self._repulsion(number_BA, distance, sender)
        return energy_BA * (number_BA > 0), scalars

    def _geometry(self, edge_A: Tensor, dense: bool) -> tuple[Tensor, Tensor]:
        """Return distances [B, A, J] and R_k Y_m: [M, B, A * K, J] when dense, [N, M * K, J]
        when packed.
        """
        distance = edge_A.square().sum(-1).sqrt()
        x, y, z = (edge_A / distance[..., None]).unbind(-1)
        basis = radial.bessel(distance, self.cutoff_A, self.config.radial, dim=2)
        basis = (
            basis
            * (radial.envelope(distance / self.cutoff_A) * self.neighbours.rsqrt())[:, :, None]
        )
        angular = torch.stack([torch.ones_like(x), *irreps.harmonics(x, y, z, self.config.order)])
        if dense:
            return distance, (angular[:, :, :, None] * basis).flatten(2, 3)
        return distance, (angular[:, 0].transpose(0, 1)[:, :, None] * basis[0][:, None]).flatten(
            1, 2
        )

    def _repulsion(self, number_BA: Tensor, distance: Tensor, sender: Tensor | None) -> Tensor:
        """Return each atom's half of the screened nuclear repulsion, eV."""
        charge = number_BA.to(distance.dtype)
        radius = self.radii_A[number_BA]
        if sender is None:
            other, far = charge[:, None], radius[:, None]
        else:
            other, far = charge[0][sender], radius[0][sender]
        reach = REACH_A * (radius[..., None] + far)
        return 0.5 * radial.zbl(distance, charge[..., None], other, reach).sum(-1)

    def forward(
        self, batch: Batch, *, stress: bool = False, create_graph: bool | None = None
    ) -> dict[str, Tensor]:
        """Return energies and forces of a batch, from one backward pass to the edge vectors.

        Args:
            batch: as AtomsCodec.collate gives it.
            stress: also return the stress; raises nothing for molecules, whose volume is taken as
                1.
            create_graph: whether forces can be differentiated again; by default in training mode
                only.

        Returns:
            energy_eV [B] float64 with references, atomic_eV [B, A] without, forces_eV_A [B, A, 3]
            (B = 1 when packed), and stress_eV_A3 [B, 6] in ASE's order and sign.
        """
        create_graph = self.training if create_graph is None else create_graph
        with torch.enable_grad(), torch.autocast(batch["edge_A"].device.type, enabled=False):
            edge_A = batch["edge_A"].detach().to(self.scale_eV.dtype).requires_grad_()
            batch = {**batch, "edge_A": edge_A}
            atomic_BA, gradient = self.differentiated(batch, create_graph)
            return self.assembled(batch, atomic_BA, gradient, stress)

    def compiled(self) -> Any:
        """Return this model with energies and forces compiled as one graph; weights are shared."""
        from sciforge.atoms.model.compiled import CompiledPotential

        return CompiledPotential(self)

    def differentiated(self, batch: Batch, create_graph: bool) -> tuple[Tensor, Tensor]:
        """Return energies of atoms [B, A] and the derivative of their sum by the edge vectors
        [B, A, J, 3].
        """
        atomic_BA, _ = self.features(batch)
        (gradient,) = torch.autograd.grad(
            atomic_BA.sum(), batch["edge_A"], create_graph=create_graph
        )
        return atomic_BA, gradient

    def assembled(
        self, batch: Batch, atomic_BA: Tensor, gradient: Tensor, stress: bool
    ) -> dict[str, Tensor]:
        """Return what `forward` returns: sums over atoms and edges."""
        number_BA, graph_N, sender = batch["number"], batch["graph"], batch.get("sender")
        level_N = batch["level"][graph_N]
        above_N = atomic_BA.flatten().double() + self.references_eV()[level_N, number_BA.flatten()]
        num = batch["level"].shape[0]
        energy = torch.zeros(num, dtype=torch.float64, device=above_N.device).index_add(
            0, graph_N, above_N
        )
        found = {"energy_eV": energy, "atomic_eV": atomic_BA}
        if sender is None:
            found["forces_eV_A"] = gradient.sum(2) - gradient.sum(1)
        else:
            pushed = gradient[0].sum(1).index_add(0, sender.flatten(), -gradient[0].flatten(0, 1))
            found["forces_eV_A"] = pushed[None]
        if stress:
            virial_N33 = (batch["edge_A"].transpose(-1, -2) @ gradient).flatten(0, 1)
            virial = torch.zeros(num, 3, 3, dtype=virial_N33.dtype, device=virial_N33.device)
            virial = (
                virial.index_add(0, graph_N, virial_N33)
                / batch["volume_A3"].to(virial_N33.dtype)[:, None, None]
            )
            rows, columns = [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]
            found["stress_eV_A3"] = ((virial + virial.transpose(1, 2)) / 2)[:, rows, columns]
        return found


def _readout(width: int, config: PotentialConfig) -> nn.Sequential:
    last = nn.Linear(config.hidden, config.levels)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(width, config.hidden), nn.SiLU(), last)


def _charge_and_spin(batch: Batch, dtype: torch.dtype) -> Tensor:
    return torch.stack([batch["charge"], batch["spin"] - 1], -1).to(dtype)


def require_elements(model: Potential, numbers: Any, where: str = "") -> None:
    """Raise ConfigError where a structure holds an element that the potential was not trained
    on.
    """
    known = {int(z) for z in model.elements_known.nonzero()}
    if strange := sorted({int(z) for z in numbers} - known):
        from ase.data import chemical_symbols

        names = ", ".join(chemical_symbols[z] for z in strange)
        trained = ", ".join(chemical_symbols[z] for z in sorted(known))
        raise ConfigError(
            f"{where}this potential was not trained on {names} (only on {trained}); fine-tune it on"
            " them"
        )


MODELS = {
    "mini": PotentialConfig(channels=48, body=3),
    "small": PotentialConfig(channels=64, body=3, radial=8),
    "medium": PotentialConfig(channels=128, body=3, blocks=3, radial=10, hidden=128),
}
