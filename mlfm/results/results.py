"""MultilevelFactorResults: what a fit found, with the labels put back."""

from __future__ import annotations

from mlfm.results.factors import FactorResults
from mlfm.results.fit import FitResults
from mlfm.results.mean import MeanResults
from mlfm.results.reports import ReportResults


class MultilevelFactorResults(MeanResults, FactorResults, FitResults, ReportResults):
    """Results of fitting a :class:`mlfm.MultilevelFactorModel`; made by its ``fit``.

    Loadings are reported in canonical rotation: in every group k, F_k' D^-1 F_k is diagonal and decreasing, and
    each factor's loadings sum to a positive number, so that two runs print the same table.

    Attributes
    ----------
    model : MultilevelFactorModel or None
        The model; None in results that were loaded from a file, which hold no data.
    hierarchy : Hierarchy
    ranks : Series
        Factors of each group, by level.
    nobs : int
        Number of observations, as often as they were seen.
    effective_nobs : float
        What their weights come to; ``nobs`` where there are none.
    n_missing : int
        Missing values in the data.
    missing_share : float
        Their share of all values.
    loadings : DataFrame
        Features x (level, factor): each feature's loadings on the factors of its own groups.
    uniquenesses : Series
        The diagonal D: each feature's variance that no factor explains.
    coefficients : DataFrame
        Features x covariates, the constant among them: each feature's mean is ``coefficients @ x``.
    on_floor : Index
        Features whose uniqueness ended on its floor.
    unidentified : list
        Groups that the data cannot identify, with the reason.
    uniqueness_floor : float
        Smallest uniqueness allowed, as a share of the feature's variance.
    trend : str
        "c" if means were estimated, else "n".
    record : FitRecord
        How the fit went.
    """
