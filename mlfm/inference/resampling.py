"""Other data for a model: drawn from a fit, or its own observations drawn again; and tasks on threads."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mlfm.covariates import refuse_collinear
from mlfm.standardised import Reals
from mlfm.sweep import Workers

if TYPE_CHECKING:
    from mlfm.model import MultilevelFactorModel
    from mlfm.results.estimates import Estimates

#: The same model of other data, drawn with a generator.
Draw = Callable[[np.random.Generator], "MultilevelFactorModel"]


def simulation(fit: Estimates, model: MultilevelFactorModel) -> Callable[[np.random.Generator], Reals]:
    """Draws from N(B x, Sigma) of a fit for every observation of its model, missing where the model's own are.

    ``model`` is the fit's own, each observation in a row of its own.
    """
    means = model.exog @ fit.coefficients.to_numpy().T
    gaps = np.isnan(model.endog) if model.n_missing else None
    covariance, precision = fit.covariance, model._data.Y.dtype

    def draw(rng: np.random.Generator) -> Reals:
        values = means + covariance.sample(len(means), rng).to_numpy()
        if gaps is not None:
            values[gaps] = np.nan
        drawn: Reals = values.astype(precision, copy=False)
        return drawn

    return draw


def parametric(fit: Estimates) -> Draw:
    """Data drawn from the fit: with the same covariates, missing values and importance weights.

    An observation that was seen f times is f draws.
    """
    model = fit._with_data("a bootstrap")._each_in_a_row()
    draw = simulation(fit, model)
    return lambda rng: model._of_other_data(values=draw(rng))


def nonparametric(fit: Estimates) -> Draw:
    """As many of the observations as there are, drawn with replacement; each keeps its covariates and its weight.

    One that was seen f times is as likely as f rows.
    """
    model = fit._with_data("a bootstrap")
    often = np.ones(len(model.row_labels)) if model._frequency is None else model._frequency
    design = pd.DataFrame(model.exog, columns=model.covariates)

    def draw(rng: np.random.Generator) -> MultilevelFactorModel:
        frequency = rng.multinomial(model.nobs, often / often.sum()).astype(np.float64)
        refuse_collinear(design, frequency)
        return model._of_other_data(frequency=frequency)

    return draw


DRAWS: Mapping[str, Callable[[Any], Draw]] = {"parametric": parametric, "nonparametric": nonparametric}


def each(task: Callable[[int], None], n: int, n_jobs: int | None, show: Callable[[], None]) -> None:
    """The tasks 0 .. n - 1 on ``n_jobs`` threads, ``show`` called after each."""

    def one(i: int) -> None:
        task(i)
        show()

    with Workers(n_jobs) as workers:
        workers.run(one, n)


def checked_counts(n_reps: Any, least: int, n_jobs: Any, name_of_first: str = "n_reps") -> None:
    """A ValueError unless both are whole numbers, not too small; ``n_jobs`` may be None."""
    for name, value, smallest in ((name_of_first, n_reps, least), ("n_jobs", 1 if n_jobs is None else n_jobs, 1)):
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < smallest:
            raise ValueError(f"{name} must be a whole number, {smallest} or more, not {value!r}")
