"""Standard errors, tests and intervals of the parameters."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Any, NoReturn, Self

import numpy as np
import pandas as pd
from scipy import linalg, stats
from statsmodels.stats.contrast import ContrastResults

from mlfm.inference.coefficients import CoefficientCovariance, InFull, Kronecker, full_covariance
from mlfm.inference.delta import share_covariance
from mlfm.inference.hypotheses import Hypothesis, chosen, held_at_zero, linear_hypothesis
from mlfm.inference.parameter_covariance import (
    FEW,
    KINDS,
    MOST,
    ClosedForms,
    Estimate,
    ParameterCovariance,
    full_parameter_covariance,
)
from mlfm.inference.tables import check_alpha, z_columns
from mlfm.results.estimates import Estimates
from mlfm.sweep import Tree
from mlfm.wording import listing, plain


class UncertaintyResults(Estimates):
    """What a fit says about how well its parameters are known."""

    _asked_cov_type: str | None = None

    @property
    def cov_type(self) -> str:
        """How the covariance of the estimates is worked out.

        "expected", "oim" (observed information), "opg" (outer product of the scores), "robust" (the sandwich of the
        last two), or "asymptotic" (closed forms for many features, linear in their number; after Bai and Li 2012).
        Unless ``fit`` was told, "expected", or with missing values "oim", up to 2000 parameters, "asymptotic" above.
        """
        if self._asked_cov_type is not None:
            return self._asked_cov_type
        size = self.loadings.size + self.coefficients.size + len(self.uniquenesses)
        if size > FEW:
            return "asymptotic"
        return "oim" if self.n_missing else "expected"

    @property
    def cov_text(self) -> str:
        """What the standard errors are, in words."""
        return KINDS[self.cov_type]

    def with_cov_type(self, cov_type: str | None) -> Self:
        """These results with standard errors of another kind.

        Parameters
        ----------
        cov_type : {"expected", "oim", "opg", "robust", "asymptotic"} or None
            See :attr:`cov_type`; None chooses by size.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> results = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[1, 1]).fit()
        >>> robust = results.with_cov_type("robust")
        >>> name = "uniqueness[t20_deduction]"
        >>> print(f"{results.bse[name]:.4f} {robust.bse[name]:.4f}")
        0.0668 0.0707
        """
        results = copy.copy(self)
        results._asked_cov_type = checked_cov_type(cov_type)
        for derived in ("_parameter_covariance", "_coefficient_covariance", "bse", "coefficients_bse"):
            results.__dict__.pop(derived, None)
        return results

    @cached_property
    def _parameter_covariance(self) -> ParameterCovariance:
        kind, model = self.cov_type, self.model
        if self.n_missing:
            self._with_data("standard errors with missing values")
        elif kind in ("oim", "opg", "robust"):
            self._with_data(f"standard errors of cov_type={kind!r}")
        order, on_floor = self.hierarchy.permutation, self.uniquenesses.index.isin(self.on_floor)
        B, F, D = (part.to_numpy()[order] for part in (self.coefficients, self.loadings, self.uniquenesses))
        estimate = Estimate(
            Tree.of(self.hierarchy.offsets, tuple(self.ranks)),
            order,
            B,
            F,
            D,
            on_floor[order],
            self.effective_nobs,
            self._covariates_root,
            None if model is None else model._data,
            None if model is None else model._score_weights,
        )
        if kind != "asymptotic":
            return full_parameter_covariance(kind, estimate)
        try:
            return ClosedForms(estimate, self._coefficient_covariance)
        except ValueError:  # too many coefficients, with missing values
            return ClosedForms(estimate, None)

    @cached_property
    def _coefficient_covariance(self) -> CoefficientCovariance:
        kind = self.cov_type
        if kind in ("opg", "robust") or (kind == "oim" and self.n_missing):
            n, q = self.coefficients.shape
            return InFull(self._among(np.arange(n * q)).reshape(n, q, n, q))
        if not self.n_missing:
            return Kronecker(self.covariance, self._covariates_root)
        model = self._with_data("standard errors with missing values")
        assert model._data.patterns is not None
        _, F, D = model._group_parts(self.params.to_numpy())
        return InFull(full_covariance(model._tree, F, D, model._data, model._data.patterns))

    @cached_property
    def bse(self) -> pd.Series:
        """Standard errors of all parameters, loadings in canonical rotation.

        They are missing where a parameter is not estimated (a uniqueness on its floor) or not identified by the data
        and, with more than 4000 coefficients and missing values, for coefficients. Of a fit that did not converge they
        are those of where it stopped.

        Raises
        ------
        ValueError
            If :attr:`cov_type` needs data and the results hold none, needs a matrix of more than 6000 parameters, or
            the fit is at no maximum.
        """
        return pd.Series(np.sqrt(self._parameter_covariance.variances), index=self.params.index)

    @property
    def tvalues(self) -> pd.Series:
        """Estimates over their standard errors, normal if the parameter is zero and there are many observations."""
        return self.params / self.bse

    @property
    def pvalues(self) -> pd.Series:
        """Two-sided p-values of :attr:`tvalues`."""
        return pd.Series(2 * stats.norm.sf(np.abs(self.tvalues)), index=self.params.index)

    def conf_int(self, alpha: float = 0.05, cols: Any = None) -> pd.DataFrame:
        """Normal intervals: estimates plus and minus standard errors times a quantile.

        Parameters
        ----------
        alpha : float
            One less the coverage.
        cols : list of names, optional
            Only these parameters.

        Returns
        -------
        DataFrame
            Parameters x (lower, upper).

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> results = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[1, 1]).fit()
        >>> results.conf_int(cols=["loading[t20_deduction, global, 1]"]).round(2)
                                           lower  upper
        loading[t20_deduction, global, 1]   0.51   0.75
        """
        check_alpha(alpha)
        half = stats.norm.isf(alpha / 2) * self.bse
        intervals = pd.DataFrame({"lower": self.params - half, "upper": self.params + half})
        return intervals if cols is None else intervals.iloc[chosen(cols, intervals.index, "cols")]

    def cov_params(
        self, r_matrix: Any = None, column: Any = None, scale: Any = None, cov_p: Any = None, other: Any = None
    ) -> Any:
        """The covariance of the estimates, or of linear functions of them.

        Parameters
        ----------
        r_matrix : array, optional
            Functions x parameters: the covariance of ``r_matrix @ params``, or with ``other`` of the two.
        column : name or list of names, optional
            Only these parameters, however many there are of all.
        scale, cov_p
            Of statsmodels' signature; refused here.
        other : array, optional

        Returns
        -------
        DataFrame or array
            Missing where a parameter is not estimated or not identified.

        Raises
        ------
        ValueError
            If there are more than 6000 parameters and none are chosen, or for the reasons of :attr:`bse`.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> results = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[1, 1]).fit()
        >>> results.cov_params(column=["uniqueness[t20_deduction]", "uniqueness[t21_numbpuzz]"]).round(3)
                                   uniqueness[t20_deduction]  uniqueness[t21_numbpuzz]
        uniqueness[t20_deduction]                      0.004                     0.000
        uniqueness[t21_numbpuzz]                       0.000                     0.019
        """
        _refuse({"scale": scale, "cov_p": cov_p})
        if r_matrix is not None:
            left = linear_hypothesis(r_matrix, self.params.index)
            right = left if other is None else linear_hypothesis(other, self.params.index, "other")
            where = np.union1d(left.where, right.where)
            rows = [_widened(side, where) for side in (left, right)]
            covariance = self._of_functions(np.concatenate(rows), where)
            return covariance[: len(rows[0]), len(rows[0]) :]
        names = self.params.index
        if column is None:
            if len(names) > MOST:
                raise ValueError(
                    f"column: the covariance of all {len(names)} parameters would take {8e-9 * len(names) ** 2:.3g} "
                    "GB; choose parameters with column=[...]"
                )
            where = np.arange(len(names))
        else:
            where = chosen(column, names, "column")
        return pd.DataFrame(self._among(where), index=names[where], columns=names[where])

    def _among(self, where: np.ndarray) -> np.ndarray:
        if len(where) > MOST:
            raise ValueError(
                f"{len(where)} parameters at once would need a covariance of {8e-9 * len(where) ** 2:.3g} GB; choose "
                f"{MOST} or fewer"
            )
        return self._parameter_covariance.among(np.asarray(where))

    def _of_functions(self, R: np.ndarray, where: np.ndarray) -> np.ndarray:
        """Covariance of R times some parameters; missing where one has no standard error."""
        among = self._among(where)
        lost = np.isnan(np.diag(among))
        among[lost], among[:, lost] = 0, 0
        covariance = R @ among @ R.T
        unknown = (R[:, lost] != 0).any(axis=1)
        covariance[unknown], covariance[:, unknown] = np.nan, np.nan
        return covariance

    def t_test(self, r_matrix: Any, cov_p: Any = None, use_t: Any = None) -> ContrastResults:
        """Each of some linear hypotheses by itself: estimate, standard error, z statistic, p-value, interval.

        Parameters
        ----------
        r_matrix : str, list of names, array, or tuple of array and values
            Hypotheses about :attr:`params` such as ``"loading[a, global, 1] = loading[b, global, 1]"``, with commas
            between them; names, each of which is tested to be zero; a matrix with a column for each parameter.
        cov_p, use_t
            Of statsmodels' signature; refused here.

        Returns
        -------
        statsmodels.stats.contrast.ContrastResults

        Raises
        ------
        ValueError
            If a parameter is unknown, or the text cannot be read.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> results = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[1, 1]).fit()
        >>> test = results.t_test("loading[t20_deduction, global, 1] = loading[t21_numbpuzz, global, 1]")
        >>> print(f"z = {test.tvalue.item():.2f}, p = {test.pvalue.item():.4f}")
        z = -1.38, p = 0.1672
        """
        _refuse({"cov_p": cov_p, "use_t": use_t})
        hypothesis = linear_hypothesis(r_matrix, self.params.index)
        effect = hypothesis.R @ self.params.to_numpy()[hypothesis.where] - hypothesis.q
        sd = np.sqrt(np.diag(self._of_functions(hypothesis.R, hypothesis.where)))
        test = ContrastResults(
            effect=effect + hypothesis.q, statistic=effect / sd, sd=sd, df_denom=np.inf, distribution="norm"
        )
        test.c_names = hypothesis.labels
        return test

    def wald_test(
        self,
        r_matrix: Any,
        cov_p: Any = None,
        invcov: Any = None,
        use_f: Any = None,
        df_constraints: Any = None,
        scalar: bool | None = None,
    ) -> ContrastResults:
        """All of some linear hypotheses at once: a Wald statistic, chi-square if they hold.

        Parameters
        ----------
        r_matrix
            As for :meth:`t_test`.
        cov_p, invcov, use_f, df_constraints, scalar
            Of statsmodels' signature; refused here. The statistic is a number.

        Returns
        -------
        statsmodels.stats.contrast.ContrastResults

        Raises
        ------
        ValueError
            If a parameter is unknown, not estimated or not identified, the text cannot be read, hypotheses follow from
            one another, or all loadings of a factor would be zero: the others are then not identified.

        Notes
        -----
        That loadings are zero can be tested so, one by one or some of a factor together, but not all of a factor's: for
        that see :func:`mlfm.lr_test`.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> results = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[1, 1]).fit()
        >>> test = results.wald_test(["loading[t20_deduction, ability, 1]", "loading[t21_numbpuzz, ability, 1]"])
        >>> print(f"chi2({test.df_denom}) = {test.statistic:.2f}, p = {test.pvalue:.4f}")
        chi2(2) = 2.57, p = 0.2769
        """
        _refuse({"cov_p": cov_p, "invcov": invcov, "use_f": use_f, "df_constraints": df_constraints})
        hypothesis = linear_hypothesis(r_matrix, self.params.index)
        where, R, q, _ = hypothesis
        gone = self._factors_without_loadings(held_at_zero(hypothesis))
        if gone:
            raise ValueError(
                f"r_matrix: all loadings of {listing(gone, show=str)} would be zero, and the statistic is then not "
                "chi-square, as nothing else about the factor is identified; fit without it and use mlfm.lr_test"
            )
        among = self._among(where)
        lost = np.isnan(np.diag(among))
        if lost.any():
            names = self.params.index[where[lost]]
            raise ValueError(f"r_matrix: parameters are not estimated or not identified: {listing(names)}")
        covariance = R @ among @ R.T
        unit = 1 / np.sqrt(np.diag(covariance))  # whatever the features' units
        covariance = covariance * unit * unit[:, None]
        difference = unit * (R @ self.params.to_numpy()[where] - q)
        if np.linalg.matrix_rank(covariance, hermitian=True) < len(q):
            raise ValueError("r_matrix: some of the hypotheses follow from the others; leave them out")
        statistic = float(difference @ linalg.solve(covariance, difference, assume_a="pos"))
        return ContrastResults(
            chi2=statistic, df_denom=len(q), statistic=statistic, distribution="chi2", distargs=(len(q),)
        )

    def _factors_without_loadings(self, zero: np.ndarray) -> list[str]:
        """Factors of which all loadings are among these parameters, in words."""
        first, r = self.coefficients.size, self.loadings.shape[1]
        loadings = np.zeros(self.loadings.size, dtype=bool)
        own = zero[(zero >= first) & (zero < first + self.loadings.size)] - first
        loadings[own] = True
        by_group, found = loadings.reshape(-1, r)[self.hierarchy.permutation], []
        ends = np.cumsum(self.ranks)
        for level, end, rank, bounds in zip(
            self.hierarchy.levels, ends, self.ranks, self.hierarchy.offsets, strict=True
        ):
            held = np.logical_and.reduceat(by_group[:, end - rank : end], bounds[:-1], axis=0)
            names = self.hierarchy.paths(level) if held.any() else []
            found += [f"{level} {plain(names[g])} {k + 1}" for g, k in np.argwhere(held)]
        return found

    def f_test(self, *arguments: Any, **options: Any) -> NoReturn:
        """Refused: there are no residual degrees of freedom here; see :meth:`wald_test`."""
        raise NotImplementedError("statistics are normal and chi-square here: use wald_test instead of f_test")

    def t_test_pairwise(self, *arguments: Any, **options: Any) -> NoReturn:
        """Refused: see :meth:`t_test`."""
        raise NotImplementedError("write the comparisons of each feature's coefficients out, for t_test")

    @property
    def communalities_bse(self) -> pd.Series:
        """Standard errors of :attr:`communalities`, by the delta method; they do not depend on the rotation."""
        errors = np.sqrt(self._parameter_covariance.of_communalities())
        return pd.Series(errors, index=self.hierarchy.features, name="communality")

    def variance_shares(self, alpha: float = 0.05) -> pd.DataFrame:
        """The share of each level, and of the unique parts, in the variance of all features, with standard errors.

        Parameters
        ----------
        alpha : float
            One less the coverage of the intervals, which are normal.

        Returns
        -------
        DataFrame
            Levels and "unique" x (share, std err, and the interval's ends); the delta method. A level without factors
            has no standard error.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> results = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[1, 1]).fit()
        >>> results.variance_shares().round(3)
                 share  std err  [0.025  0.975]
        level
        global   0.248    0.019   0.210   0.285
        ability  0.211    0.013   0.185   0.236
        unique   0.541    0.016   0.510   0.573
        """
        check_alpha(alpha)
        explained = self.variance_explained()
        kept = np.append(np.asarray(self.ranks) > 0, True)
        errors = np.full(len(kept), np.nan)  # a level without factors has no share to estimate
        covariance = share_covariance(explained["variance"].to_numpy()[kept], self._parameter_covariance.of_sums())
        errors[kept] = np.sqrt(np.diag(covariance))
        share, half = explained["share"], stats.norm.isf(alpha / 2) * errors
        low, high = z_columns(alpha)[-2:]
        return pd.DataFrame(
            {"share": share, "std err": errors, low: share - half, high: share + half}, index=explained.index
        )


def _widened(hypothesis: Hypothesis, where: np.ndarray) -> np.ndarray:
    """R of a hypothesis over more parameters."""
    R = np.zeros((len(hypothesis.R), len(where)))
    R[:, np.searchsorted(where, hypothesis.where)] = hypothesis.R
    return R


def checked_cov_type(cov_type: Any) -> str | None:
    """One of the kinds, or None."""
    if cov_type is not None and (not isinstance(cov_type, str) or cov_type not in KINDS):
        raise ValueError(f"cov_type must be one of {listing(KINDS)}, or None, not {cov_type!r}")
    return cov_type


def _refuse(arguments: dict[str, Any]) -> None:
    for name, value in arguments.items():
        if value is not None and value is not False:
            raise ValueError(f"{name}: not used here; other standard errors come by with_cov_type")
