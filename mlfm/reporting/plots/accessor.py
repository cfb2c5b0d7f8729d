"""``results.plot``: the plots of a fit."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from mlfm.reporting.plots.climbs import climbs
from mlfm.reporting.plots.convergence import convergence
from mlfm.reporting.plots.loadings import loadings
from mlfm.reporting.plots.matrices import covariance, residual_correlations
from mlfm.reporting.plots.scores import scores
from mlfm.reporting.plots.scree import scree
from mlfm.reporting.plots.shares import variance_shares

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

    from mlfm.results import MultilevelFactorResults


class Plots:
    """Plots of a fit, as ``results.plot``; they need matplotlib (``pip install "mlfm[plot]"``).

    Every method takes ``ax``, matplotlib axes to draw in, or a figure (or part of one) to which axes are added, and
    returns the figure. Without ``ax`` it makes a figure of its own, which pyplot does not know: save it with
    ``savefig``, or let a notebook show it.

    Examples
    --------
    >>> import mlfm
    >>> data = mlfm.datasets.load("abilities")
    >>> results = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[1, 1]).fit()
    >>> figure = results.plot.loadings()
    >>> figure.axes[0].get_title()
    'Loadings'
    """

    def __init__(self, results: MultilevelFactorResults) -> None:
        self._results = results

    def loadings(self, level: Hashable | None = None, ax: Axes | FigureBase | None = None) -> Figure:
        """Heatmap of the standardised loadings: features in the order of the hierarchy, lines between its groups.

        Parameters
        ----------
        level : hashable, optional
            A level whose factors are shown; by default those of all levels.
        ax : matplotlib axes or figure, optional

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ValueError
            If there is no such level, or it has no factors.
        """
        return loadings(self._results, level, ax)

    def covariance(self, correlation: bool = True, ax: Axes | FigureBase | None = None, max_cells: int = 600) -> Figure:
        """Heatmap of the fitted correlation or covariance, in the order of the hierarchy.

        Parameters
        ----------
        correlation : bool
            Of features scaled to variance 1.
        ax : matplotlib axes or figure, optional
        max_cells : int
            Cells a side. Of more features, neighbours are taken together, and a cell is the mean over its pairs of
            different features; the matrix itself is never made.

        Returns
        -------
        matplotlib.figure.Figure
            The scale of colours is that of what is off the diagonal.
        """
        return covariance(self._results, correlation, ax, max_cells)

    def residual_correlations(self, ax: Axes | FigureBase | None = None, max_cells: int = 600) -> Figure:
        """Heatmap of the sample's correlations less the fitted ones: blocks of one colour are what the model misses.

        Parameters
        ----------
        ax : matplotlib axes or figure, optional
        max_cells : int
            Cells a side; see :meth:`covariance`.

        Returns
        -------
        matplotlib.figure.Figure
            Missing values are taken as what the fit expects of them, which makes their residuals a little small.

        Raises
        ------
        ValueError
            If the results hold no data.
        """
        return residual_correlations(self._results, ax, max_cells)

    def variance_shares(self, by: str = "level", ax: Axes | FigureBase | None = None) -> Figure:
        """How the fitted variance splits over the levels.

        Parameters
        ----------
        by : {"level", "group"}
            One bar a level, or for each group of the finest level with factors a bar of the variance of its features,
            split by level.
        ax : matplotlib axes or figure, optional

        Returns
        -------
        matplotlib.figure.Figure
        """
        return variance_shares(self._results, by, ax)

    def scree(self, level: Hashable = "global", ax: Axes | FigureBase | None = None) -> Figure:
        """Eigenvalues that speak for the rank of a level: those of each group's sample correlation matrix, less what
        the coarser levels were fitted to explain.

        Parameters
        ----------
        level : hashable
        ax : matplotlib axes or figure, optional

        Returns
        -------
        matplotlib.figure.Figure
            One line a group; of more than 100 groups the median and the band of the middle nine tenths. Dotted, the
            rank that was fitted: what stands to its right and far above the dashed line, the largest eigenvalue of
            independent noise with the same variances (Marchenko and Pastur's edge), speaks for a higher rank here or
            at a finer level.

        Raises
        ------
        ValueError
            If there is no such level, or the results hold no data.
        """
        return scree(self._results, level, ax)

    def convergence(self, ax: Axes | FigureBase | None = None) -> Figure:
        """The log-likelihood still to gain at each evaluation, as it turned out and as the fit expected it.

        Parameters
        ----------
        ax : matplotlib axes or figure, optional

        Returns
        -------
        matplotlib.figure.Figure
        """
        return convergence(self._results, ax)

    def climbs(self, ax: Axes | FigureBase | None = None) -> Figure:
        """Every climb of the fit, and how far below the highest maximum it stopped.

        Parameters
        ----------
        ax : matplotlib axes or figure, optional

        Returns
        -------
        matplotlib.figure.Figure
            The axis is linear up to 0.1 nats and logarithmic beyond; climbs that were given up have crosses.
        """
        return climbs(self._results, ax)

    def scores(
        self,
        level: Hashable | None = None,
        columns: Sequence[tuple[Hashable, Hashable, int]] | None = None,
        ax: Axes | FigureBase | None = None,
    ) -> Figure:
        """Scores of factors over the observations: a lane for each factor, a heatmap of more than twelve.

        Parameters
        ----------
        level : hashable, optional
            The level whose factors are shown; by default the first with factors.
        columns : sequence of (level, group, factor), optional
            Factors as :meth:`MultilevelFactorResults.scores` names them.
        ax : matplotlib axes or figure, optional

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ValueError
            If there are no such factors, or the results hold no data.
        """
        return scores(self._results, level, columns, ax)
