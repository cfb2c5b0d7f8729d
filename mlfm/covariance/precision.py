"""The inverse of a covariance: a multilevel low rank matrix with the same groups and ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlfm.covariance.lowrank import MultilevelLowRank
from mlfm.covariance.terms import Terms

if TYPE_CHECKING:
    from mlfm.covariance.covariance import MultilevelCovariance

Floats = NDArray[np.float64]


class MultilevelPrecision(MultilevelLowRank):
    """The inverse of a :class:`MultilevelCovariance`: Sigma^-1 = D^-1 - H_1 H_1' - .. - H_L H_L'.

    H has the block structure of the loadings, so all that can be done with an MLR matrix can be done with it:
    products, selections, traces, the diagonal. It is made by :meth:`MultilevelCovariance.inv`.

    Where uniquenesses are tiny against the loadings, D^-1 and H H' nearly cancel; :meth:`MultilevelCovariance.solve`
    keeps more digits than a product with this matrix.

    References
    ----------
    Parshakova, Hastie and Boyd, *Fitting Multilevel Factor Models* (arXiv 2409.12067), section 4: the recursive
    Sherman-Morrison-Woodbury identity.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from mlfm import Hierarchy, MultilevelCovariance
    >>> labels = pd.DataFrame({"sector": ["T", "E", "T"]}, index=["AMD", "BP", "SAP"])
    >>> sigma = MultilevelCovariance(Hierarchy(labels), [[1.0, 0.5], [1, 1], [1, 2]], [1.0, 1, 1], ranks=[1, 1])
    >>> precision = sigma.inv()
    >>> precision.factors.shape
    (3, 2)
    >>> np.allclose(precision.to_dense() @ sigma.to_dense(), np.eye(3))
    True
    """

    def __init__(self, covariance: MultilevelCovariance, H: Floats, precisions: Floats) -> None:
        hierarchy = covariance.hierarchy
        self._covariance = covariance
        self._hold(hierarchy, Terms.of(hierarchy.offsets, covariance._terms.ranks, H, H, -1.0, precisions))

    @property
    def factors(self) -> pd.DataFrame:
        """H, features x (level, factor); ``.H`` is SciPy's name for the adjoint."""
        return self._factor_frame(self._terms.left)

    def inv(self) -> MultilevelCovariance:
        """The covariance that this is the inverse of."""
        return self._covariance

    def solve(self, b: Any) -> Any:
        """Sigma b, the solution of Sigma^-1 x = b."""
        return self._covariance @ b

    def logdet(self) -> float:
        """Natural logarithm of the determinant."""
        return -self._covariance.logdet()

    def slogdet(self) -> tuple[float, float]:
        """Sign (1) and natural logarithm of the determinant, as :func:`numpy.linalg.slogdet`."""
        return 1.0, self.logdet()
