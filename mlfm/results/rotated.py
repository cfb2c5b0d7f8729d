"""Results whose loadings are rotated inside each group, to simple structure or towards a target."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping
from functools import cached_property
from typing import Any, NoReturn, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlfm.covariance import MultilevelCovariance
from mlfm.inference.counts import Unidentified
from mlfm.inference.parameter_covariance import ParameterCovariance
from mlfm.results.results import MultilevelFactorResults

Floats = NDArray[np.float64]


class RotatedResults(MultilevelFactorResults):
    """Results of a fit with loadings rotated inside groups; made by :meth:`MultilevelFactorResults.rotate`.

    The model is the same in every rotation: log-likelihood, covariance, communalities, variance shares, means and
    predictions are those of the fit. ``loadings``, ``scores`` and ``scores_se`` are those of the rotated factors.
    ``params`` stays the parameter vector of the fit, in canonical rotation, so that ``model.loglike(results.params)``
    is ``llf``. Standard errors are for the canonical rotation, and are had from ``unrotated``.

    Attributes
    ----------
    loadings : DataFrame
        Features x (level, factor): L = F M in each group, F in canonical rotation.
    factor_correlations : DataFrame
        Correlations Phi of each group's factors, (level, group, factor) x factor, for the levels that were rotated; the
        covariance of level l is blockdiag(L Phi L'). Ones and zeros after an orthogonal rotation.
    rotation_matrices : DataFrame
        M of each group, (level, group, canonical factor) x factor; the same where nothing was rotated.
    not_rotated : list
        Groups of these levels that were left as they are, with the reason.
    rotation : str
        Which rotation it is.
    """

    def __init__(
        self, canonical: MultilevelFactorResults, turns: Mapping[int, list[Floats]], oblique: bool, rotation: str,
        not_rotated: list[Unidentified],
    ) -> None:  # fmt: skip
        # The results are there already: nothing is to be worked out again.
        self.__dict__.update(vars(canonical))
        self._canonical = canonical.loadings
        self.rotation, self.not_rotated = rotation, not_rotated
        hierarchy, terms = self.hierarchy, canonical.covariance._terms
        F = np.empty_like(terms.left)
        tree = terms.tree
        self._turns = []
        matrices: list[Floats] = []
        correlations: list[Floats] = []
        labels: list[tuple[Hashable, Hashable, int]] = []
        widest = max((tree.ranks[level] for level in turns), default=0)
        for level, depth in enumerate(terms.tree_levels()):
            own, nodes, rank = tree.own(level), tree.n_nodes(level), tree.ranks[level]
            M = np.array(turns.get(level, [np.eye(rank)] * nodes)).reshape(nodes, rank, rank)
            for k, (a, b) in enumerate(itertools.pairwise(tree.offsets[level])):
                F[a:b, own] = terms.left[a:b, own] @ M[k]
            inverse: Floats = np.asarray(np.linalg.inv(M)) if oblique else M.transpose(0, 2, 1)
            Phi = inverse @ inverse.transpose(0, 2, 1) if oblique else np.broadcast_to(np.eye(rank), M.shape)
            self._turns.append(inverse)
            if level in turns:
                name = hierarchy.levels[depth]
                labels += [(name, group, f + 1) for group in hierarchy.paths(name) for f in range(rank)]
                for out, part in ((matrices, M), (correlations, Phi)):
                    padded = np.full((nodes, rank, widest), np.nan)
                    padded[:, :, :rank] = part
                    out.append(padded.reshape(nodes * rank, widest))
        user = np.empty_like(F)
        user[hierarchy.permutation] = F
        self.loadings = pd.DataFrame(user, index=self._canonical.index, columns=self._canonical.columns)
        index = pd.MultiIndex.from_arrays(
            [pd.Index(column, dtype=object, tupleize_cols=False) for column in zip(*labels, strict=True)],
            names=["level", "group", "factor"],
        )
        columns = pd.RangeIndex(1, widest + 1, name="factor")
        self.rotation_matrices = pd.DataFrame(np.concatenate(matrices), index=index, columns=columns)
        self.factor_correlations = pd.DataFrame(np.concatenate(correlations), index=index, columns=columns)

    @cached_property
    def unrotated(self) -> MultilevelFactorResults:
        """The results in canonical rotation."""
        plain = MultilevelFactorResults.__new__(MultilevelFactorResults)
        own = {"_canonical", "_turns", "rotation", "not_rotated", "rotation_matrices", "factor_correlations"}
        plain.__dict__.update({name: value for name, value in vars(self).items() if name not in own})
        plain.loadings = self._canonical
        return plain

    @property
    def params(self) -> pd.Series:
        """All parameters of the fit, named, the loadings in canonical rotation."""
        return self.unrotated.params

    @property
    def covariance(self) -> MultilevelCovariance:
        """The fitted covariance, as linear algebra; the same in every rotation."""
        return self.unrotated.covariance

    @property
    def communalities(self) -> pd.Series:
        """Share of each feature's fitted variance that its factors explain; the same in every rotation."""
        return self.unrotated.communalities

    def variance_explained(self, by: str = "level") -> pd.DataFrame:
        """How the fitted variance splits; the same in every rotation, see
        :meth:`MultilevelFactorResults.variance_explained`.
        """
        return self.unrotated.variance_explained(by)

    def rotate(self, *arguments: Any, **options: Any) -> RotatedResults:
        """Another rotation, from the canonical one; see :meth:`MultilevelFactorResults.rotate`."""
        return self.unrotated.rotate(*arguments, **options)

    def cov_params(self, *arguments: Any, **options: Any) -> NoReturn:
        """Refused: standard errors are for the canonical rotation."""
        raise ValueError(
            "standard errors, tests and intervals are those of the canonical rotation, in which the loadings are "
            "determined: ask results.unrotated for them. The uniquenesses and coefficients are the same here and there"
        )

    t_test = f_test = wald_test = t_test_pairwise = conf_int = cov_params

    @property
    def bse(self) -> pd.Series:
        """Refused: standard errors are for the canonical rotation."""
        self.cov_params()

    tvalues = pvalues = bse

    @property
    def _parameter_covariance(self) -> ParameterCovariance:
        # Communalities and variance shares are the same in every rotation, and so are their standard errors.
        return self.unrotated._parameter_covariance

    def bootstrap(self, *arguments: Any, **options: Any) -> NoReturn:
        """Refused: replicates are of the canonical rotation."""
        raise ValueError("a bootstrap is of loadings in canonical rotation: ask results.unrotated for it")

    def with_cov_type(self, cov_type: str | None) -> Self:
        """The same results with standard errors of another kind; see :meth:`MultilevelFactorResults.with_cov_type`."""
        results = super().with_cov_type(cov_type)
        results.__dict__.pop("unrotated", None)
        return results

    def remove_data(self) -> None:
        """Drop the model, and with it the data."""
        super().remove_data()
        self.__dict__.pop("unrotated", None)

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, {self.rotation} rotation>"
