"""The diagonal Fisher information of a network, by which elastic weight consolidation weighs its
pull.

The Fisher is per example: the squared gradient of a batch mean is many times too small (Avalanche
#1224), and cannot come about here, since every estimator below sees one example at a time.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm.auto import tqdm

from sciforge.core.data import sampling
from sciforge.core.domain import Categorical, Codec, Likelihood, Objective, Records
from sciforge.core.methods.regularization import Estimator
from sciforge.core.training.distributed import Engine
from sciforge.errors import ConfigError

# Rows of the output Jacobian per batched backward pass; 16 rows of a 3 M-parameter net are 200 MB.
ROWS = 16


def fisher_information(
    model: nn.Module,
    objective: Objective,
    codec: Codec,
    records: Records,
    *,
    estimator: Estimator = "exact",
    examples: int = 256,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Return the diagonal Fisher information of every weight, the mean over examples, in the
    model's precision.

    Args:
        model: in evaluation mode on any device.
        objective: gives the likelihood.
        codec: encodes and collates.
        records: the data to estimate on; the first `examples` of the seed's order are used.
        estimator: `exact` takes the expectation over the model's own predictive distribution in
            closed form (one backward pass per target and class), `sampled` one draw from it,
            `empirical` the true targets.
        examples: how many records.
        seed: of the order, the corruption and the sampled labels.
    """
    if estimator not in ("exact", "sampled", "empirical"):
        raise ConfigError(f"no Fisher estimator {estimator!r}; use exact, sampled or empirical")
    model.eval()
    names, parameters = zip(*model.named_parameters(), strict=True)
    device, dtype = parameters[0].device, parameters[0].dtype
    total = [torch.zeros_like(p) for p in parameters]
    engine = Engine(device, "float64" if dtype == torch.float64 else "float32")
    if not (count := min(examples, len(records))):
        raise ConfigError(
            "no records to estimate the Fisher information from; give a store with a training split"
        )
    chosen = sampling.step_indices(len(records), count, seed, 0)
    for _, index in tqdm(
        chosen, f"Fisher ({estimator})", unit="example", disable=None, leave=False
    ):
        rng = sampling.generator(seed, sampling.CORRUPT, 0, index)
        example = objective.prepare(records[index], codec, rng, training=False)
        batch = engine.move(codec.collate([example]))
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no batched backward
            likelihood = objective.likelihood(model, batch)
            outputs = (
                likelihood.logits_NC if isinstance(likelihood, Categorical) else likelihood.mean_N
            )
            draw = torch.Generator().manual_seed(
                int(sampling.generator(seed, sampling.EVALUATE, 0, index).integers(2**62))
            )
            for rows in _rows(likelihood, estimator, draw) if outputs.numel() else ():
                grads = torch.autograd.grad(
                    outputs,
                    parameters,
                    rows,
                    is_grads_batched=True,
                    retain_graph=True,
                    allow_unused=True,
                )
                for sum_, grad in zip(total, grads, strict=True):
                    if grad is not None:
                        sum_ += grad.square().sum(0)
    return {name: sum_ / count for name, sum_ in zip(names, total, strict=True)}


def _rows(likelihood: Likelihood, estimator: str, draw: torch.Generator) -> Iterator[Tensor]:
    """Yield vectors v [R, *outputs], a few at a time, whose squared vector-Jacobian products sum to
    the Fisher.

    For a softmax, sum_c p_c (d log p_c)^2 needs v_c = sqrt(p_c) (e_c - p) on the logits of each
    target; for one label y, drawn or true, v = e_y - p on all targets at once. For a Gaussian, v_n
    = e_n / scale_n.
    """
    if isinstance(likelihood, Categorical):
        p_NC = likelihood.logits_NC.detach().softmax(-1)
        eye_CC = torch.eye(p_NC.shape[1], device=p_NC.device, dtype=p_NC.dtype)
        if estimator != "exact":
            drawn = torch.multinomial(p_NC.cpu(), 1, generator=draw)[:, 0].to(p_NC.device)
            yield (eye_CC[drawn if estimator == "sampled" else likelihood.target_N] - p_NC)[None]
            return
        v_NCC = p_NC.sqrt()[:, :, None] * (eye_CC - p_NC[:, None, :])
    else:
        scale_N = likelihood.scale_N.detach()
        if estimator != "exact":
            noise_N = torch.randn(scale_N.shape, generator=draw, dtype=scale_N.dtype).to(
                scale_N.device
            )
            true_N = (likelihood.target_N - likelihood.mean_N.detach()) / scale_N
            yield ((noise_N if estimator == "sampled" else true_N) / scale_N)[None]
            return
        v_NCC = (1 / scale_N)[:, None, None]  # one "class"
    num, rows = v_NCC.shape[:2]
    targets = max(1, ROWS // rows)
    for start in range(0, num, targets):
        v_nCC = v_NCC[start : start + targets]
        at_n = torch.arange(len(v_nCC), device=v_nCC.device)
        v_nCNC = v_nCC.new_zeros(len(v_nCC), rows, num, v_NCC.shape[2])
        v_nCNC[at_n, :, start + at_n] = v_nCC
        v_RNC = v_nCNC.flatten(0, 1)
        yield v_RNC if isinstance(likelihood, Categorical) else v_RNC[..., 0]
