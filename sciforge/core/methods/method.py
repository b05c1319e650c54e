"""What the training loop knows of a method: hooks around a step, and what of it a checkpoint keeps.

The loop calls the hooks of `TrainingState.methods` in their order (regularization, pruning, moving
average, what DP-SGD has spent, retention) and knows none of them. Two kinds of method have no hook:
`finetuning` decides which parameters the optimiser gets, `distillation` wraps the objective. DP-SGD
also takes the place of the gradient (`TrainingState.gradient`), since it needs that of each
example.
"""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

if TYPE_CHECKING:
    from sciforge.core.training.training_state import TrainingState


class Method:
    """A change of the training step; a subclass overrides the hooks that it needs.

    Attributes:
        name: prefix of its tensors in resume/state.safetensors.
    """

    name: ClassVar[str] = ""

    def before_step(self, state: "TrainingState", step: int) -> None:
        """Change weights before the loss of a step (0-based) is computed."""

    def after_backward(self, state: "TrainingState", step: int) -> dict[str, float | Tensor]:
        """Change `.grad`, reduced and divided, before it is clipped; return metrics to log.

        A metric may be a scalar on the device: the loop copies them all at once.
        """
        return {}

    def after_step(self, state: "TrainingState", step: int) -> None:
        """Change weights after the optimiser has moved them."""

    def evaluated_weights(self) -> AbstractContextManager[None] | None:
        """Return the context in which the model holds the weights to evaluate and save; None
        where they are its own.
        """
        return None

    def tensors(self) -> dict[str, Tensor]:
        """Return parameter name -> tensor of what a resumed run needs; a resumed run copies into
        these tensors.
        """
        return {}

    def summary(self, state: "TrainingState", *, final: bool) -> dict[str, Any]:
        """Return metrics that the checkpoint keeps; `final` for the finished one."""
        return {}
