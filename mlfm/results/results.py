"""MultilevelFactorResults: what a fit found, with the labels put back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlfm.results.bootstrap import BootstrapResults
from mlfm.results.fit import FitResults
from mlfm.results.likelihood_ratio import LikelihoodRatioResults
from mlfm.results.prediction import PredictionResults
from mlfm.results.reports import ReportResults

if TYPE_CHECKING:
    from mlfm.results.rotated import RotatedResults


class MultilevelFactorResults(PredictionResults, BootstrapResults, LikelihoodRatioResults, FitResults, ReportResults):
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
    rotation : str
        "canonical", or which other rotation the loadings are in; see :meth:`rotate`.
    """

    rotation: str = "canonical"

    def rotate(
        self,
        method: str = "varimax",
        *,
        levels: Any = None,
        normalize: str = "kaiser",
        gamma: float | None = None,
        power: float | None = None,
        target: Any = None,
        oblique: bool | None = None,
        n_starts: int = 5,
        rng: Any = None,
        maxiter: int = 1000,
        tol: float = 1e-6,
    ) -> RotatedResults:
        """The same results with loadings rotated inside each group, for simple structure or towards a target.

        Factors of different groups are never mixed, so that the model stays what it is. Rotated factors are ordered by
        the sums of squares of their standardised loadings, whose sums are positive; after a target rotation they stay
        as the target has them, and only factors for which it has nothing but zeros are turned to positive sums.

        Parameters
        ----------
        method : str
            Orthogonal: "varimax", "quartimax", "biquartimax", "orthomax" (with ``gamma``). Oblique: "quartimin",
            "oblimin" (with ``gamma``, by default 0: quartimin), "promax" (with ``power``). "target": as near to a
            ``target`` as can be, orthogonal or ``oblique``.
        levels : level or list of levels, optional
            Which levels to rotate; by default all with two factors or more, or those with a target.
        normalize : {"kaiser", "correlation", "none"}
            What the criterion sees. "kaiser": each feature's loadings in the group divided by the root of their sum of
            squares, so that every feature counts the same. "correlation": divided by the feature's standard deviation.
            "none": loadings as they are, in the data's units.
        gamma : float, optional
            Of the orthomax family (0 quartimax, 1 varimax), or the oblimin family (at most 1; above 0 oblique factors
            may collapse into each other).
        power : float, optional
            Of promax, by default 4, as in R.
        target : mapping from levels to DataFrames, features x factors, or DataFrame with columns (level, factor)
            In the units of the loadings; missing where nothing is specified.
        oblique : bool, optional
            With a target: let factors correlate.
        n_starts : int
            Starts of the search in each group, the first without any rotation and the others random; the best is kept.
        rng : int, Generator or None
            For the random starts; None is seed 0.
        maxiter : int
            Steps of a search at most.
        tol : float
            Slope of the criterion at which a search ends, for criteria scaled to be near 1; at least 1e-8.

        Returns
        -------
        RotatedResults
            With ``loadings``, ``scores`` and ``summary`` of the rotated factors, and ``factor_correlations``.

        Raises
        ------
        ValueError, TypeError
            If no level has two factors in a group, or an argument does not go with the method.

        Warns
        -----
        RotationWarning
            If groups were left as they are, as they have fewer features than factors, say; or if a search did not end.

        References
        ----------
        Bernaards and Jennrich (2005), *Gradient projection algorithms and software for arbitrary rotation criteria in
        factor analysis*, Educational and Psychological Measurement 65(5); Browne (2001), *An overview of analytic
        rotation in exploratory factor analysis*, Multivariate Behavioral Research 36(1).

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> results = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[3, 0]).fit()
        >>> rotated = results.rotate("quartimin")
        >>> rotated.loadings.iloc[:3].round(2)
        level         global
        factor             1     2     3
        feature
        t20_deduction   0.22  0.56 -0.05
        t21_numbpuzz    0.18  0.40  0.37
        t22_probreas    0.40  0.41 -0.01
        >>> rotated.factor_correlations.loc[("global", "global")].round(2)
        factor     1     2     3
        factor
        1       1.00  0.39  0.26
        2       0.39  1.00  0.40
        3       0.26  0.40  1.00
        """
        # The class of its results is made of this one.
        from mlfm.inference.rotations import Rotation
        from mlfm.results.rotation import rotate

        way = Rotation.of(method, normalize, gamma, power, oblique, n_starts, rng, maxiter, tol, target)
        return rotate(self, way, levels, target)
