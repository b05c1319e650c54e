"""Energies and forces as one compiled graph: torch.compile alone cannot differentiate a model that
differentiates itself.

The energy and its derivative by the edge vectors are traced together (make_fx, as NequIP does,
arXiv 2504.16068), for shapes that vary; what is left is an ordinary function of the weights, which
compiles and trains.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sciforge.core.domain import Batch

TRACED = ("number", "edge_A", "sender", "graph", "level", "charge", "spin")


class _Differentiated(nn.Module):
    """The function that is traced, as a module so that weights can be handed in."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        batch = {**batch, "edge_A": batch["edge_A"].detach().requires_grad_()}
        return self.model.differentiated(batch, create_graph=True)


class CompiledPotential:
    """A potential whose energies and forces are compiled once for each layout; shares the
    weights of the model.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.wrapped = _Differentiated(model)
        self.graphs: dict[bool, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(
        self, batch: Batch, *, stress: bool = False, create_graph: bool | None = None
    ) -> dict[str, Tensor]:
        """Return what the model returns for the batch."""
        traced = {name: batch[name] for name in TRACED if name in batch}
        tensors = {**dict(self.wrapped.named_parameters()), **dict(self.wrapped.named_buffers())}
        layout = "sender" in traced
        if layout not in self.graphs:
            self.graphs[layout] = torch.compile(
                self.trace(tensors, self.example(traced)), dynamic=False
            )
        with torch.enable_grad(), torch.autocast(batch["edge_A"].device.type, enabled=False):
            atomic_BA, gradient = self.graphs[layout](tensors, traced)
            return self.model.assembled(batch, atomic_BA, gradient, stress)

    def example(self, batch: Batch) -> Batch:
        """Return a random batch of the same layout whose sizes no weight has: equal sizes would
        be taken for one.
        """
        taken = {size for p in self.model.parameters() for size in p.shape}
        graphs, atoms, near, nodes = [
            n for n in (5, 7, 11, 13, 17, 19, 23, 29, 31, 37) if n not in taken
        ][:4]
        shape = (1, nodes, near, 3) if "sender" in batch else (graphs, atoms, atoms, 3)
        generator = torch.Generator().manual_seed(0)
        edge_A = 1.0 + torch.rand(shape, generator=generator, dtype=batch["edge_A"].dtype)
        number = torch.ones(shape[:2], dtype=torch.int64)
        made = {"number": number, "edge_A": edge_A, "graph": torch.arange(number.numel()) % graphs}
        if "sender" in batch:
            made["sender"] = torch.randint(nodes, shape[1:3], generator=generator)
        made |= {
            name: torch.zeros(graphs, dtype=torch.int64) for name in ("level", "charge", "spin")
        }
        return {name: tensor.to(batch["edge_A"].device) for name, tensor in made.items()}

    def trace(self, tensors: dict[str, Tensor], batch: Batch) -> torch.fx.GraphModule:
        """Return the graph of energies and their derivative for a batch of this layout, of any
        size.
        """
        from torch.fx.experimental.proxy_tensor import make_fx

        def function(tensors: dict[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
            return functional_call(self.wrapped, tensors, (batch,))

        self.model(batch)  # once as it is, so that tables of constants are made outside the trace
        leaves = {
            name: t.detach().requires_grad_(t.is_floating_point()) for name, t in tensors.items()
        }
        graph = make_fx(function, tracing_mode="symbolic", _allow_non_fake_inputs=True)(
            leaves, batch
        )
        graph.graph.eliminate_dead_code()
        graph.recompile()
        return graph
