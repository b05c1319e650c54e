"""NusseltLaw: the few-point fit as a scikit-learn estimator.

Legend of shape letters: N measured points, M points asked for, G groups, F features, K laws, C
components.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from sciforge import catalog
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.errors import ConfigError, DataError
from sciforge.heat.correlations.groups import GROUPS, check_points
from sciforge.heat.data.codec import CHANNEL, HeatCodec
from sciforge.heat.inference import experiment_design, formula, plot, python_source
from sciforge.heat.inference.fitted_law import FittedLaw
from sciforge.heat.model.extrapolation import Certificate, certify
from sciforge.heat.model.mixture import moments, quantile
from sciforge.heat.model.nusselt_net import MODELS, POWER, NusseltConfig, NusseltNet
from sciforge.heat.model.posterior import NEW_RIG, Posterior, Rows
from sciforge.heat.model.torch_module import LawModule
from sciforge.heat.model.transfer_audit import FEWEST, NOTHING, compare
from sciforge.heat.objectives.nusselt import HEAD, Nusselt, keep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sciforge.heat.inference.experiment_design import Suggestions
    from sciforge.heat.inference.formula import Tangent

PRETRAINED = "nusselt-"  # names of bundled priors start so
PART = 2048  # points of which the whole mixture is held at once


class HeatWarning(UserWarning):
    """Something about measured points or about the points asked for that the user should know."""


class NusseltLaw(RegressorMixin, BaseEstimator):
    """Nu = published laws x a power law in the groups x a residual that fades away from the data,
    with intervals.

    X is a DataFrame or a mapping with the columns Re, Pr, e_D, P_e, alpha_deg, W_H (those of a
    smooth square channel may be left out), or an array whose columns `columns` names; y is the
    Nusselt number on the basis of the prior's laws: ribbed wall, projected area, hydraulic diameter
    of the smooth channel (`sciforge.heat.data.reference_basis.convert` converts).

    Args:
        prior: name or path of a pretrained checkpoint (`nusselt-ribbed`); None starts from a vague
            power law.
        columns: names of an array's columns; None takes the six groups where there is a prior, else
            columns without a meaning, of which those that are positive enter by their logarithm.
        laws: which of the prior's laws to use; None takes all. Without a prior, laws of the library
            under a vague prior.
        audit: whether `fit` audits the leave-one-out errors of each law and drops laws that harm
            (on FEWEST points or more).

    Attributes:
        transfer_audit_: what each source did to the leave-one-out error; None on fewer than FEWEST
            points or without a prior.
        notes_: weights of laws, noise, and how much of the evidence asks for a residual.
    """

    def __init__(
        self,
        prior: str | Path | None = None,
        columns: Sequence[str] | None = None,
        laws: Sequence[str] | None = None,
        audit: bool = True,
    ) -> None:
        self.prior = prior
        self.columns = columns
        self.laws = laws
        self.audit = audit

    @classmethod
    def pretrained(cls, name: str | Path = "ribbed", **options: Any) -> Self:
        """Return an unfitted law with a bundled prior (`ribbed`, `tubes`, `smooth`) or that of a
        checkpoint's path.

        >>> NusseltLaw.pretrained("ribbed").prior
        'nusselt-ribbed'
        """
        return cls(prior=f"{PRETRAINED}{name}" if name in MODELS else name, **options)

    def fit(self, X: Any, y: Any, rig: Sequence[str] | None = None, factor: Any = None) -> Self:
        """Solve the posterior of measured points.

        Args:
            X: groups of each point.
            y: Nusselt numbers.
            rig: the laboratory or rig of each point, where there are several.
            factor: the noise of each point as a multiple of the usual one.

        Raises:
            DataError: a group or Nusselt number that physics does not allow, or a column that is
                missing.
        """
        names, X = self._columns_of(X)
        x_NG, nusselt_N = validate_data(
            self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=1
        )
        names, x_NG = self._whole(names, x_NG)
        nusselt_N = np.asarray(nusselt_N, float)
        check_points(x_NG, names, nusselt_N)
        self.columns_ = names
        codec = HeatCodec(columns=names)
        self.codec_ = codec if codec.channel else codec.fitted(x_NG)
        self.rigs_ = tuple(sorted(set(map(str, rig)))) if rig is not None else ("",)
        self._warn(x_NG, names)
        log_N = np.log(nusselt_N)
        rig_N = (
            np.array([self.rigs_.index(str(r)) for r in rig])
            if rig is not None
            else np.zeros(len(log_N), int)
        )
        factor_N = (
            np.ones(len(log_N))
            if factor is None
            else np.broadcast_to(np.asarray(factor, float), log_N.shape)
        )
        self._points = tuple(map(torch.from_numpy, (x_NG, log_N, np.array(factor_N), rig_N)))
        used = tuple(self.laws or ())
        self.transfer_audit_ = None
        if self.audit and self.prior is not None and len(log_N) >= FEWEST:
            used = self._audited(used)
        self._solve(used)
        return self

    def _solve(self, used: tuple[str, ...]) -> None:
        """Build the net and solve it with some laws; NOTHING stands for no prior at all."""
        self.model_, self.objective_ = self._fresh(used, len(self._points[1]))
        self.notes_ = keep(self.model_, self.objective_, *self._points)

    def _fresh(self, used: tuple[str, ...], points: int) -> tuple[NusseltNet, Nusselt]:
        """Return a net with its prior, and the objective, before any point."""
        objective = Nusselt(points=points, rigs=self.rigs_, laws=() if used == (NOTHING,) else used)
        if self.prior is None or used == (NOTHING,):
            laws = tuple(self.laws or (POWER,)) if self.prior is None else (POWER,)
            model = NusseltConfig(laws).build(self.codec_)
        else:
            checkpoint = Checkpoint.open(catalog.locate(self.prior))
            if checkpoint.body["domain"] != "heat":
                raise DataError(
                    f"{self.prior} is a checkpoint of {checkpoint.body['domain']}; give one of heat"
                )
            model = checkpoint.model_config.build(self.codec_)
            weights = checkpoint.weights()
            model.load_state_dict({name: weights[name] for name, _ in model.named_parameters()})
        model.double().eval().requires_grad_(False)
        objective.attach(model)
        model.heads[HEAD].double()
        return model, objective

    def _audited(self, used: tuple[str, ...]) -> tuple[str, ...]:
        """Keep the transfer audit and return the laws that do not harm, saying which were
        dropped.
        """
        self.transfer_audit_ = compare(self._fresh(used, 1)[0], *self._points, used)
        if self.transfer_audit_.kept:
            text = (
                f"{', '.join(self.transfer_audit_.harmful)} made leave-one-out errors on these"
                " points larger than no pretraining does; dropped (kept:"
                f" {', '.join(self.transfer_audit_.kept)}); audit=False keeps all"
            )
            warnings.warn(HeatWarning(text), stacklevel=4)
        return self.transfer_audit_.kept or used

    def fitted_law(self) -> FittedLaw:
        """Return what formulas, exports and plots need of the fit; raises NotFittedError."""
        posterior = self.posterior_
        name = "" if self.prior is None or self.model_.laws == (POWER,) else Path(self.prior).name
        return FittedLaw(self.model_, posterior, self._points[0], name, self.rigs_)

    @property
    def posterior_(self) -> Posterior:
        """The exact posterior of the points."""
        check_is_fitted(self, "model_")
        return self.model_.heads[HEAD].posterior(self.model_)

    def predict(
        self, X: Any, return_std: bool = False, rig: str | Sequence[str] | None = None
    ) -> Any:
        """Return Nusselt numbers [M] (medians) and, where asked, their standard deviations [M],
        noise included.

        Args:
            X: groups of each point.
            return_std: also return standard deviations.
            rig: whose points these are; None the rig of the fit where there was one, `new` or an
                unknown name one never seen.

        Raises:
            DataError: as `fit`.
        """
        if not return_std:
            found = [self._middle(part) for part in self._parts(X, rig)]
            return np.concatenate(found)
        pairs = [moments(*self._mixture(part)) for part in self._parts(X, rig)]
        nusselt_M = torch.cat([mean.exp() for mean, _ in pairs]).numpy()
        return (
            nusselt_M,
            nusselt_M * torch.cat([torch.expm1(std**2).sqrt() for _, std in pairs]).numpy(),
        )

    def _middle(self, rows: Rows) -> np.ndarray:
        """Return medians of points: of the fit's one rig by its collapsed law, which is the same
        and faster.
        """
        if len(self.rigs_) == 1 and not bool((rows.rig_N == NEW_RIG).any()):
            return self.posterior_.collapsed().mean(rows).exp().numpy()
        return moments(*self._mixture(rows))[0].exp().numpy()

    def predict_interval(
        self, X: Any, coverage: float = 0.9, rig: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return lower and upper ends [M] of the central interval that holds a new reading with
        probability `coverage`.
        """
        tails = ((1 - coverage) / 2, (1 + coverage) / 2)
        if not 0 < coverage < 1:
            raise ConfigError(f"coverage is {coverage}; give a share between 0 and 1")
        mixtures = [self._mixture(part) for part in self._parts(X, rig)]
        ends = [torch.cat([quantile(*mixture, share) for mixture in mixtures]) for share in tails]
        return ends[0].exp().numpy(), ends[1].exp().numpy()

    def module(self) -> LawModule:
        """Return the median law as a torch module of rows of groups, for compiled solvers,
        gradients and GPUs.
        """
        check_is_fitted(self, "model_")
        return LawModule(self.codec_, self.model_.laws, self.posterior_)

    def _mixture(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        found = self.posterior_
        mean_CM, variance_CM = found.predict(rows)
        return found.components.weight_C, mean_CM, variance_CM

    def _parts(self, X: Any, rig: Any) -> Iterator[Rows]:
        """Yield the points in parts of bounded memory."""
        rows = self.rows(X, rig)
        used = list({int(law) for law in self.posterior_.components.law_C})
        if lost := int((~rows.base_KN[used].isfinite()).any(0).sum()):
            text = (
                f"{lost} points are NaN: a law has no value there (a smooth wall under laws of"
                " ribs?); ask `smooth` laws"
            )
            warnings.warn(HeatWarning(text), stacklevel=4)
        places = torch.arange(len(rows.log_N))
        yield from (rows.take(part) for part in places.split(PART))

    def rows(self, X: Any, rig: Any = None) -> Rows:
        """Return points as the posterior sees them; raises DataError as `fit`."""
        check_is_fitted(self, "model_")
        x_MG = self._groups(X)
        rig_M = torch.full(
            (len(x_MG),), self._rig(rig) if rig is None or isinstance(rig, str) else 0
        )
        if rig is not None and not isinstance(rig, str):
            rig_M = torch.tensor([self._rig(str(name)) for name in rig])
        return self.model_.rows(torch.from_numpy(x_MG), rig_N=rig_M)

    def _rig(self, name: str | None) -> int:
        if name is None:
            return 0 if len(self.rigs_) == 1 else NEW_RIG
        return self.rigs_.index(name) if name in self.rigs_ else NEW_RIG

    def certificate(self, X: Any) -> Certificate:
        """Say of each point whether it lies inside the measured points' hull, and in which
        groups it does not.
        """
        check_is_fitted(self, "model_")
        return certify(
            self.codec_,
            self.posterior_.prior.length_D.numpy(),
            self._points[0].numpy(),
            self._groups(X),
        )

    def _groups(self, X: Any) -> np.ndarray:
        """Return rows of groups [M, G] to be predicted; raises DataError as `fit`."""
        names, X = self._columns_of(X)
        x_MG = validate_data(self, X, reset=False, dtype=np.float64)
        names, x_MG = self._whole(names, x_MG)
        check_points(x_MG, names)
        return x_MG

    def _columns_of(self, X: Any) -> tuple[tuple[str, ...] | None, Any]:
        """Return the names of X's columns, None for an array, and X as scikit-learn may check
        it.
        """
        if issparse(X) or not (isinstance(X, Mapping) or hasattr(X, "columns")):
            return None, X
        if self.columns is not None:
            return None, stacked(X, tuple(self.columns))
        names = getattr(self, "columns_", None) or self._wanted(tuple(map(str, X)))
        return names, stacked(X, names)

    def _wanted(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the columns of the codec: the six groups where a law may read them, else those
        there are.
        """
        return CHANNEL if self.prior is not None or "Re" in names else names

    def _whole(
        self, names: tuple[str, ...] | None, x_NG: np.ndarray
    ) -> tuple[tuple[str, ...], np.ndarray]:
        """Return names and columns of a checked array, in the order of the codec, those of a
        smooth wall filled in.
        """
        if names is not None:
            return names, x_NG
        width = x_NG.shape[1]
        if self.columns is None and self.prior is None:
            return tuple(f"x{place}" for place in range(width)), x_NG
        named = CHANNEL if self.columns is None else tuple(self.columns)
        if width != len(named):
            raise DataError(
                f"X has {width} columns; give {', '.join(named)}, or name them with `columns`"
            )
        wanted = self._wanted(named)
        return wanted, stacked(dict(zip(named, x_NG.T, strict=True)), wanted)

    def _warn(self, x_NG: np.ndarray, names: tuple[str, ...]) -> None:
        if self.prior is None:
            return
        if len(x_NG) == 1:
            warnings.warn(
                HeatWarning("one point: it fixes the level, all exponents are those of the prior"),
                stacklevel=3,
            )
        elif same := [
            name
            for name, column in zip(names, x_NG.T, strict=True)
            if np.ptp(column) == 0 and name != "Pr"
        ]:
            text = (
                f"no change in {', '.join(same)}: the exponent is that of the prior; measure at"
                " other values to learn it"
            )
            warnings.warn(HeatWarning(text), stacklevel=3)
        if repeated := len(x_NG) - len(np.unique(x_NG, axis=0)):
            warnings.warn(
                HeatWarning(
                    f"{repeated} points repeat the groups of others; readings count as independent"
                ),
                stacklevel=3,
            )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.positive_only = True
        tags.input_tags.positive_only = self.prior is not None
        return tags

    def exponents(self) -> "Tangent":
        """Return level, exponents and angle factors at the centre of the points, with intervals
        and what they are from.
        """
        return formula.exponents(self)

    def formula(self) -> str:
        """Return the law as a power law in plain text: the tangent at the centre of the points."""
        return formula.formula(self)

    def latex(self) -> str:
        """Return the law as a LaTeX equation."""
        return formula.latex(self)

    def to_python(self) -> str:
        """Return the source of a function `nusselt(Re, Pr, ...)` that needs the standard library
        only.
        """
        return python_source.to_python(self)

    def plot(self, group: str | None = None, ax: "Axes | None" = None) -> "Axes":
        """Draw the Nusselt number against a group with its 90 % band and the measured points, or
        predicted against measured.

        Args:
            group: name of a column, e.g. Re; None draws predicted against measured Nusselt numbers.
            ax: where to draw; None for axes of their own.

        Returns:
            The axes, to go on with.
        """
        return plot.draw_parity(self, ax) if group is None else plot.draw_group(self, group, ax)

    def figure(self) -> "Figure":
        """Return a figure of parity, residuals against each group that varies, and exponents
        with their intervals.
        """
        return plot.draw_law(self)

    def next_experiment(self, candidates: Any, count: int = 1) -> "Suggestions":
        """Return which of the candidate readings to take next, the most useful first; raises
        DataError, ConfigError.
        """
        check_is_fitted(self, "model_")
        return experiment_design.next_experiment(self, self._groups(candidates), count)


def stacked(X: Any, names: Sequence[str]) -> np.ndarray:
    """Return columns of a mapping or frame as an array, those of a smooth wall filled in; raises
    DataError for others.

    >>> stacked({"Re": [1e4, 2e4], "Pr": 0.7}, ("Re", "Pr", "W_H")).tolist()
    [[10000.0, 0.7, 1.0], [20000.0, 0.7, 1.0]]
    """
    keys = {str(key): key for key in X}
    found = []
    for name in names:
        absent = GROUPS[name].absent if name in GROUPS else None
        if name not in keys and absent is None:
            raise DataError(f"X has no column {name!r}; give {', '.join(names)}")
        found.append(np.atleast_1d(X[keys[name]] if name in keys else absent))
    return np.stack(np.broadcast_arrays(*found), 1)
