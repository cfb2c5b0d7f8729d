"""The bootstrap of a fit: replicates refitted from the estimates, their factors brought onto those of the fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlfm.inference.factor_alignment import ALIGNMENTS, aligned
from mlfm.inference.replicates import Replicates
from mlfm.inference.resampling import DRAWS, each
from mlfm.seeds import generators
from mlfm.wording import count, listing

if TYPE_CHECKING:
    from mlfm.results.estimates import Estimates

Floats = NDArray[np.float64]
#: The parameters, in the order of their names.
PARAMETERS: Mapping[str, Callable[[Any], pd.DataFrame | pd.Series]] = {
    "coefficients": lambda fit: fit.coefficients,
    "loadings": lambda fit: fit.loadings,
    "uniquenesses": lambda fit: fit.uniquenesses,
}
#: What follows from them, whatever the rotation.
DERIVED: Mapping[str, Callable[[Any], pd.Series]] = {
    "communalities": lambda fit: fit.communalities,
    "shares": lambda fit: fit.variance_explained()["share"],
    "mean_shares": lambda fit: fit.variance_explained()["mean_share"],
}
PARTS = (*PARAMETERS, *DERIVED)
MOST = 1 << 28  # numbers that are kept: 2 GB
#: How a replicate came out; anything else is what was wrong with its data.
INSIDE, ON_FLOOR, UNCONVERGED = "inside", "on the floor", "did not converge"
USED = (INSIDE, ON_FLOOR)


class Bootstrap:
    """Replicates of a fit, and what they say of its estimates; made by :meth:`MultilevelFactorResults.bootstrap`.

    Attributes
    ----------
    kind : str
        How data were drawn: "parametric" or "nonparametric".
    align : str
        How factors were brought onto those of the fit: "signs" or "procrustes".
    n_reps : int
        Replicates that were asked for.
    failures : list of str
        What was wrong with replicates whose data allow no fit (a feature does not vary, say); they are left out.
    n_unconverged : int
        Replicates whose fit did not converge; they are left out.
    n_on_floor : int
        Replicates with uniquenesses on their floor (Heywood cases); they are used.
    """

    def __init__(self, found: Mapping[str, Replicates], kind: str, align: str, outcomes: Sequence[str]) -> None:
        self._found, self.kind, self.align, self.n_reps = found, kind, align, len(outcomes)
        self.n_unconverged, self.n_on_floor = outcomes.count(UNCONVERGED), outcomes.count(ON_FLOOR)
        self.failures = [outcome for outcome in outcomes if outcome not in (*USED, UNCONVERGED)]

    @property
    def n_kept(self) -> int:
        """Replicates that are used: all but those that failed and those that did not converge."""
        return self.n_reps - len(self.failures) - self.n_unconverged

    @property
    def params(self) -> Replicates:
        """The parameters, named as in ``results.params``."""
        return self._part("params", tuple(PARAMETERS))

    @property
    def communalities(self) -> Replicates:
        """Share of each feature's variance that its factors explain."""
        return self._part("communalities")

    @property
    def shares(self) -> Replicates:
        """Share of each level in the total variance (see :meth:`MultilevelFactorResults.variance_explained`)."""
        return self._part("shares")

    @property
    def mean_shares(self) -> Replicates:
        """Share of each level in a feature's variance, on average over features."""
        return self._part("mean_shares")

    def _part(self, part: str, names: Sequence[str] = ()) -> Replicates:
        if part not in self._found:
            raise ValueError(f"{listing(names or [part])} were not kept of the replicates; name them in keep")
        return self._found[part]

    @property
    def replicates(self) -> pd.DataFrame:
        """Replicates x parameters."""
        return self.params.values

    @property
    def bse(self) -> pd.Series:
        """Standard errors of the parameters: the replicates' standard deviations."""
        return self.params.bse

    def cov_params(self) -> pd.DataFrame:
        """Covariance of the parameters over the replicates; a ValueError if there are more than 4000."""
        return self.params.cov()

    def conf_int(self, alpha: float = 0.05, method: str = "percentile") -> pd.DataFrame:
        """Intervals of the parameters (see :meth:`mlfm.inference.replicates.Replicates.conf_int`)."""
        return self.params.conf_int(alpha, method)

    def __repr__(self) -> str:
        return f"<Bootstrap: {self._words()}>"

    def __str__(self) -> str:
        lines = [f"Bootstrap: {self._words()}"]
        if self.n_on_floor:
            lines.append(f"{count(self.n_on_floor, 'replicate')} with uniquenesses on their floor (Heywood cases)")
        if "shares" in self._found:
            method = "percentile" if self.n_kept >= 39 else "normal"
            table = self.shares.table(method=method).round(4)
            lines += ["", f"Share of the total variance, 95 % intervals ({method}):", str(table)]
        return "\n".join(lines)

    def _words(self) -> str:
        lost = [(len(self.failures), "failed"), (self.n_unconverged, "did not converge")]
        left_out = "".join(f", {number} {what} and left out" for number, what in lost if number)
        return f"{count(self.n_kept, f'{self.kind} replicate')}{left_out}; factors aligned by {self.align!r}"


def checked_parts(keep: Any, fit: Estimates, n_reps: int) -> list[str]:
    """The parts to keep of each replicate, in their order; a ValueError where they are unknown, or too much."""
    if isinstance(keep, str):
        keep = [keep]
    wanted = list(PARTS if keep is None else keep)
    unknown = [part for part in wanted if part not in PARTS]
    if unknown or not wanted:
        raise ValueError(f"keep: parts must be some of {listing(PARTS, most=9)}, not {listing(unknown) or 'none'}")
    parts = [part for part in PARTS if part in wanted]
    sizes = {part: n_reps * ({**PARAMETERS, **DERIVED}[part](fit)).size for part in parts}
    if sum(sizes.values()) > MOST:
        words = ", ".join(f"{part} {8e-9 * size:.1f} GB" for part, size in sizes.items())
        raise ValueError(
            f"n_reps, keep: {n_reps} replicates would take {8e-9 * sum(sizes.values()):.1f} GB ({words}), more than "
            f"{8e-9 * MOST:.1f}; take fewer, or name what is wanted of each, as in keep=['communalities', 'shares']"
        )
    return parts


def bootstrap(
    fit: Estimates,
    n_reps: int,
    kind: str,
    align: str,
    parts: Sequence[str],
    rng: Any,
    n_jobs: int | None,
    show: Callable[[], None],
) -> Bootstrap:
    """Draw data, fit them from the estimates on, align; replicates that are no estimates are left out."""
    draw, hierarchy, ranks = DRAWS[kind](fit), fit.hierarchy, list(fit.ranks)
    order = hierarchy.permutation
    target, D = fit.loadings.to_numpy()[order], fit.uniquenesses.to_numpy()[order]

    def onto_the_fit(loadings: pd.DataFrame) -> Floats:
        out = np.empty_like(target)
        out[order] = aligned(loadings.to_numpy()[order], target, D, hierarchy.offsets, ranks, ALIGNMENTS[align])
        return out

    def measured(results: Estimates) -> dict[str, Floats]:
        own = [PARAMETERS[part](results) for part in PARAMETERS if part in parts]
        values = [(onto_the_fit(x) if x is results.loadings else x.to_numpy()).ravel() for x in own]
        found = {"params": np.concatenate(values)} if values else {}
        return found | {part: DERIVED[part](results).to_numpy() for part in DERIVED if part in parts}

    estimates = _estimates(fit, parts)
    values = {part: np.empty((n_reps, len(own))) for part, own in estimates.items()}
    outcomes, seeds = [""] * n_reps, generators(rng, n_reps)

    def replicate(i: int) -> None:
        try:
            results = draw(seeds[i])._refit(like=fit, start=fit)
        except ValueError as error:  # that of data that allow no fit
            outcomes[i] = str(error)
            return
        outcomes[i] = UNCONVERGED if not results.converged else ON_FLOOR if len(results.on_floor) else INSIDE
        for part, found in measured(results).items():
            values[part][i] = found

    each(replicate, n_reps, n_jobs, show)
    used = np.array([outcome in USED for outcome in outcomes])
    found = {
        part: Replicates(own, values[part] if used.all() else values[part][used]) for part, own in estimates.items()
    }
    return Bootstrap(found, kind, align, outcomes)


def _estimates(fit: Estimates, parts: Sequence[str]) -> dict[str, pd.Series]:
    """What replicates are compared with."""
    sizes = [PARAMETERS[part](fit).size for part in PARAMETERS]
    kept = np.repeat([part in parts for part in PARAMETERS], sizes)
    found = {"params": fit.params[kept]} if kept.any() else {}
    return found | {part: DERIVED[part](fit) for part in DERIVED if part in parts}
