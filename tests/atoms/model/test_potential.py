"""The potential against e3nn, against itself in other layouts and precisions, and at the edges
of what it may be given.
"""

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from sciforge.atoms import AtomsCodec, Potential, PotentialConfig
from sciforge.atoms.data import codec
from sciforge.atoms.model.compiled import CompiledPotential
from sciforge.atoms.model.potential import Mix, Product, require_elements
from sciforge.errors import ConfigError
from sciforge.nn.equivariant import irreps
from sciforge.nn.equivariant.radial import envelope, zbl
from sciforge.structures.structure import Structure

CODEC = AtomsCodec(cutoff_A=4.5, neighbours=8.0, force_eV_A=1.0, elements=(1, 6, 8, 14, 29))
CONFIG = PotentialConfig(channels=6, radial=4, hidden=5, body=3, levels=2)


def structure(atoms) -> Structure:
    return Structure(atoms.numbers.astype(np.int64), atoms.positions, atoms.cell.array, atoms.pbc)


def example(atoms) -> dict:
    return CODEC.encode(CODEC.record_of(structure(atoms)))


def batch(*atoms, dtype=torch.float64) -> dict:
    found = CODEC.collate([example(a) for a in atoms])
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in found.items()}


def packed(monkeypatch, *atoms, dtype=torch.float64) -> dict:
    with monkeypatch.context() as patch:
        patch.setattr(codec, "DENSE_ATOMS", 0)
        return batch(*atoms, dtype=dtype)


def model(config: PotentialConfig = CONFIG, dtype=torch.float64, seed: int = 0) -> Potential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return config.build(CODEC).to(dtype)


def detached(found: dict) -> dict:
    return {name: value.detach() for name, value in found.items()}


def test_harmonics_are_those_of_e3nn():
    o3 = pytest.importorskip("e3nn.o3", exc_type=ImportError)
    v = torch.randn(20, 3, dtype=torch.float64)
    theirs = o3.spherical_harmonics([0, 1, 2], v, normalize=True, normalization="component")
    ours = torch.stack(
        [
            torch.ones(20, dtype=torch.float64),
            *irreps.harmonics(*(v / v.norm(dim=1, keepdim=True)).T, 2),
        ]
    )
    assert torch.allclose(ours.T, theirs, atol=1e-14)


@pytest.mark.parametrize("order, out", [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2)])
def test_product_is_that_of_e3nn(order: int, out: int):
    o3 = pytest.importorskip("e3nn.o3", exc_type=ImportError)
    channels, nodes = 3, 5
    ours = Product(order, out, channels).double()
    inputs = o3.Irreps([(channels, (l, (-1) ** l)) for l in range(order + 1)])
    outputs = o3.Irreps([(channels, (l, (-1) ** l)) for l in range(out + 1)])
    paths = irreps.paths(order, out)
    theirs = o3.TensorProduct(
        inputs,
        inputs,
        outputs,
        [(a, b, c, "uuu", True) for a, b, c in paths],
        irrep_normalization="none",
        path_normalization="none",
        internal_weights=False,
        shared_weights=True,
    ).double()
    rows = irreps.coupling(order, out)
    signs, start = [], 0
    for a, b, c in paths:  # a path's sign is a convention; its size is not
        block = rows[start : start + 2 * c + 1].reshape(2 * c + 1, irreps.components(order), -1)
        block = block[:, irreps.span(a), irreps.span(b)]
        wigner = (
            o3.wigner_3j(a, b, c, dtype=torch.float64).permute(2, 0, 1).numpy() * (2 * c + 1) ** 0.5
        )
        signs.append(float(np.sign((block * wigner).sum())) * (2 * c + 1) ** 0.5)
        start += 2 * c + 1
    weight = (ours.weight.detach() * torch.tensor(signs)[:, None]).flatten()
    x, y = (
        torch.randn(irreps.components(order), nodes, channels, dtype=torch.float64)
        for _ in range(2)
    )

    # [M, N, C] -> e3nn's blocks of channels by component
    def flat(t: torch.Tensor, most: int) -> torch.Tensor:
        return torch.cat(
            [t[irreps.span(l)].permute(1, 2, 0).flatten(1) for l in range(most + 1)], 1
        )

    assert torch.allclose(
        flat(ours(x, y).detach(), out), theirs(flat(x, order), flat(y, order), weight), atol=1e-12
    )


def test_mixing_is_one_linear_map_an_irrep():
    mix = Mix(2, 4, 3).double()
    x = torch.randn(9, 5, 4, dtype=torch.float64)
    for l in range(3):
        assert torch.allclose(
            mix(x)[irreps.span(l)], x[irreps.span(l)] @ mix.weight[4 * l : 4 * l + 4]
        )


@pytest.mark.parametrize("order, body", [(1, 1), (1, 3), (2, 2), (2, 4)])
def test_layouts_agree(monkeypatch, order: int, body: int):
    net = model(PotentialConfig(channels=6, radial=4, hidden=5, order=order, body=body))
    atoms = [molecule(name) for name in ("CH3CH2OH", "H2O", "CH4", "H")]
    with monkeypatch.context() as patch:
        patch.setattr(codec, "DENSE_WASTE", 100.0)
        one = net(batch(*atoms), stress=True)
    two = net(packed(monkeypatch, *atoms), stress=True)
    sizes = [len(a) for a in atoms]
    dense = torch.cat([f[:n] for f, n in zip(one["forces_eV_A"], sizes, strict=True)])
    assert torch.allclose(one["energy_eV"], two["energy_eV"], rtol=1e-12)
    assert torch.allclose(dense, two["forces_eV_A"][0], atol=1e-12)
    assert torch.allclose(one["stress_eV_A3"], two["stress_eV_A3"], atol=1e-12)
    grads = []
    for found in (one, two):
        net.zero_grad()
        (found["energy_eV"].sum() + found["forces_eV_A"].square().sum()).backward()
        grads.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
    assert all(torch.allclose(a, b, atol=1e-11) for a, b in zip(*grads, strict=True))


def test_one_compiled_graph_serves_all_sizes(monkeypatch):
    net = model().train()
    fast = CompiledPotential(net)
    # the trace; code generation takes minutes
    monkeypatch.setattr(torch, "compile", lambda graph, dynamic: graph)
    molecules = [[molecule("CH3CH2OH")], [molecule("H2O"), molecule("CH4"), molecule("H2CO")]]
    for data in [
        *(batch(*m) for m in molecules),
        *(packed(monkeypatch, *m) for m in molecules),
        batch(bulk("Si")),
    ]:
        ours, traced = net(data, stress=True), fast(data, stress=True)
        for name in ours:
            assert torch.allclose(ours[name], traced[name], atol=1e-12), name
        grads = []
        for found in (ours, traced):
            net.zero_grad()
            found["forces_eV_A"].square().sum().backward()
            grads.append(
                [p.grad.clone() for p in net.parameters() if p.grad is not None and p.grad.any()]
            )
        assert all(torch.allclose(a, b, atol=1e-11) for a, b in zip(*grads, strict=True))
    assert len(fast.graphs) == 2


def test_forces_can_be_differentiated_twice():
    net = model(PotentialConfig(channels=2, radial=2, hidden=2, body=2))
    data = batch(molecule("H2O"))
    weight = net.blocks[0].gather.weight

    def force(value: torch.Tensor) -> torch.Tensor:
        found = torch.func.functional_call(
            net, {"blocks.0.gather.weight": value}, (data,), {"create_graph": True}
        )
        return found["forces_eV_A"]

    assert torch.autograd.gradcheck(force, (weight.detach().clone().requires_grad_(),), atol=1e-6)


def test_references_survive_float32():
    net = model(dtype=torch.float32)
    energies = {1: -13.568422383046626, 6: -1025.2770951782686, 8: -2035.5709809589698}
    for element, energy in energies.items():
        net.set_reference(element, energy)
    net = net.half().float()  # casts of the model must not round them below float32's own pair
    for element, energy in energies.items():
        net.set_reference(element, energy)
    data = batch(molecule("CH3CH2OH"), dtype=torch.float32)
    found = detached(net.eval()(data))
    above = found["energy_eV"] - found["atomic_eV"].double().sum(1)
    assert float(above[0]) == pytest.approx(
        2 * energies[6] + energies[8] + 6 * energies[1], abs=1e-7
    )
    assert found["energy_eV"].dtype == torch.float64 and torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize(
    "atoms", [molecule("H"), molecule("H2"), bulk("Cu"), bulk("Si") * (1, 1, 3)]
)
def test_small_graphs_have_finite_answers(atoms):
    net = model().train()
    found = net(batch(atoms), stress=True)
    (found["energy_eV"].sum() + found["forces_eV_A"].square().sum()).backward()
    assert all(torch.isfinite(value).all() for value in found.values())
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    if len(atoms) == 1:
        assert found["forces_eV_A"].detach().abs().max() < 1e-12


def test_ghosts_and_padding_count_nothing():
    net = model()
    alone = detached(net(batch(molecule("H2O"))))
    together = detached(net(batch(molecule("H2O"), molecule("CH3CH2OH"))))
    assert float(alone["energy_eV"][0]) == pytest.approx(float(together["energy_eV"][0]), abs=1e-12)
    assert together["forces_eV_A"][0, 3:].abs().max() == 0


def test_repulsion_wins_at_short_range():
    pair = [
        zbl(torch.tensor(r), torch.tensor(6.0), torch.tensor(8.0), torch.tensor(1.2)).item()
        for r in (0.2, 0.5, 1.3)
    ]
    assert pair[0] > 5 * pair[1] > 50 and pair[2] == 0
    x = torch.linspace(0.9, 1.1, 201, dtype=torch.float64, requires_grad=True)
    value = envelope(x)
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x)
    assert (value[x >= 1] == 0).all() and slope[101:].abs().max() == 0
    # curvature goes to 0 with distance to the cutoff
    assert abs(float(bend[99])) < 1.0 and abs(float(bend[0])) > 5


def test_charge_spin_and_level_are_inputs():
    net = model(PotentialConfig(channels=4, radial=3, hidden=3, charges=True, levels=2))
    torch.nn.init.normal_(net.charge_embed.weight)
    data = batch(molecule("H2O"))
    base = float(detached(net(data))["energy_eV"][0])
    for name, value in (("charge", 1), ("spin", 3), ("level", 1)):
        assert (
            abs(float(detached(net({**data, name: torch.tensor([value])}))["energy_eV"][0]) - base)
            > 1e-6
        )


def test_unknown_elements_are_named():
    with pytest.raises(ConfigError, match="not trained on U .only on H, C, O, Si, Cu"):
        require_elements(model(), [6, 92])


@pytest.mark.parametrize("settings", [{"order": 3}, {"channels": 0}, {"body": 9}, {"blocks": 0}])
def test_impossible_sizes_are_refused(settings: dict):
    with pytest.raises(ConfigError, match="must be between"):
        PotentialConfig(**settings)
