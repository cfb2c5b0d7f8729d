"""Standard errors, tests and intervals of the parameters."""

from __future__ import annotations

from typing import Any

import pandas as pd

from mlfm.results.estimates import Estimates


class UncertaintyResults(Estimates):
    """What a fit says about how well its parameters are known."""

    def cov_params(self, *arguments: Any, **options: Any) -> Any:
        """Not there yet, and so neither are standard errors, tests and intervals."""
        raise NotImplementedError(
            "standard errors and tests of loadings and uniquenesses are not available in this version of mlfm; for "
            "those of coefficients see coefficients_bse, coefficients_table() and wald_test_terms()"
        )

    t_test = f_test = wald_test = t_test_pairwise = conf_int = cov_params

    @property
    def bse(self) -> pd.Series:
        """Not there yet."""
        return self.cov_params()
