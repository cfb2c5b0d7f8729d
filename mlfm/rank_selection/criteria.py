"""What ranks are chosen by: a number for each fit, in units of minus twice a log-likelihood, less being better."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mlfm.model import MultilevelFactorModel
    from mlfm.results import MultilevelFactorResults


class Criterion(NamedTuple):
    """``of`` a fit; and the ``price`` of a loading, for what to expect of fits not yet made."""

    of: Callable[[MultilevelFactorResults], float]
    price: Callable[[MultilevelFactorModel], float]


CRITERIA: dict[str, Criterion] = {
    "aic": Criterion(lambda fit: fit.aic, lambda model: 2.0),
    "bic": Criterion(lambda fit: fit.bic, lambda model: math.log(model.effective_nobs)),
    "sabic": Criterion(lambda fit: fit.sabic, lambda model: math.log((model.effective_nobs + 2) / 24)),
    "ebic": Criterion(
        lambda fit: fit.ebic(), lambda model: math.log(model.effective_nobs) + 2 * math.log(model.hierarchy.n_features)
    ),
}
#: Chosen by cross-validation, by the log-likelihood of what is held out; a parameter is likely to cost what AIC asks.
CROSS_VALIDATION, CV_PRICE = "cv", 2.0
