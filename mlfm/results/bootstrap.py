"""The bootstrap of a fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlfm.exceptions import BootstrapWarning, warn_caller
from mlfm.inference.bootstrap import Bootstrap, bootstrap, checked_parts
from mlfm.inference.factor_alignment import ALIGNMENTS
from mlfm.inference.resampling import DRAWS, checked_counts
from mlfm.progress import counting_bar
from mlfm.results.estimates import Estimates
from mlfm.wording import count, listing


class BootstrapResults(Estimates):
    """How the estimates vary from data to data."""

    def bootstrap(
        self,
        n_reps: int = 999,
        kind: str = "parametric",
        align: str = "signs",
        keep: Sequence[str] | None = None,
        rng: Any = None,
        n_jobs: int | None = 1,
        disp: bool = False,
    ) -> Bootstrap:
        """Fit the model to many data sets like this one: standard errors and intervals of all that was estimated.

        Each replicate is fitted on from these estimates with the settings of this fit.

        Parameters
        ----------
        n_reps : int
            Number of replicates, 2 or more.
        kind : {"parametric", "nonparametric"}
            "parametric": data drawn from the fitted model at the same covariates, with the same values missing and the
            same importance weights; an observation that was seen f times (``freq_weights``) is f draws.
            "nonparametric": as many of the observations as there are, drawn with replacement, each with its covariates,
            missing values and importance weight; one that was seen f times is as likely as f rows. It does without
            normality; both take observations as independent.
        align : {"signs", "procrustes"}
            How the factors of a replicate are brought onto those of this fit, in each group. "signs": put in their
            order and given their signs. This is the bootstrap of the loadings as they are reported, in canonical
            rotation, and its standard errors hold what is not known of that rotation: they are large where two factors
            of a group explain nearly the same. "procrustes": rotated onto them. The standard errors are those of
            loadings in a rotation that is given, this fit's; smaller, and not for statements on the canonical one. With
            one factor a group they are the same; uniquenesses, communalities and shares do not depend on it.
        keep : list of str, optional
            What to keep of each replicate: some of "coefficients", "loadings", "uniquenesses", "communalities",
            "shares" and "mean_shares"; by default all. With very many features the loadings of all replicates take much
            memory.
        rng : int or numpy Generator, optional
            Seed; None is 0. Each replicate has a generator of its own, spawned from it.
        n_jobs : int, optional
            Threads, a replicate on each; None for as many as the process may use. Results do not depend on it.
        disp : bool
            Show a progress bar.

        Returns
        -------
        Bootstrap
            ``bse``, ``conf_int()``, ``cov_params()`` and ``replicates`` of the parameters; the same of
            ``communalities`` and ``shares``. Replicates that failed or did not converge are left out.

        Raises
        ------
        ValueError
            If the fit did not converge, its results hold no data, fewer than 2 replicates are left, or what is to be
            kept takes more than 2 GB.

        Warns
        -----
        BootstrapWarning
            If replicates are left out; it says how many, and why.

        Notes
        -----
        Efron and Tibshirani (1993), *An Introduction to the Bootstrap*. Replicates go to the maximum near the
        estimates, not to others that the likelihood may have.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> results = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[1, 1]).fit()
        >>> boot = results.bootstrap(n_reps=49, rng=1)
        >>> boot
        <Bootstrap: 49 parametric replicates; factors aligned by 'signs'>
        >>> boot.shares.table().round(2)
                 estimate  bias  std err  [0.025  0.975]
        level
        global       0.25  0.00     0.02    0.22    0.28
        ability      0.21  0.01     0.01    0.19    0.24
        unique       0.54 -0.01     0.02    0.49    0.56
        """
        self._with_data("a bootstrap")
        checked_counts(n_reps, 2, n_jobs)
        for name, value, known in (("kind", kind, DRAWS), ("align", align, ALIGNMENTS)):
            if not isinstance(value, str) or value not in known:
                raise ValueError(f"{name} must be one of {listing(known)}, not {value!r}")
        if not self.converged:
            raise ValueError(
                f"the fit did not converge, and is no estimate to begin with: {self.record.reason}; raise maxiter, or "
                "fit with start= these results"
            )
        parts = checked_parts(keep, self, n_reps)
        with counting_bar(disp, n_reps, "bootstrap") as show:
            found = bootstrap(self, int(n_reps), kind, align, parts, rng, n_jobs, show)
        lost = n_reps - found.n_kept
        if found.n_kept < 2:
            reason = found.failures[0] if found.failures else "they did not converge"
            raise ValueError(f"{count(lost, 'replicate')} of {n_reps} failed or did not converge: {reason}")
        if lost:
            reasons = [f"{found.n_unconverged} did not converge"] if found.n_unconverged else []
            reasons += [f"{len(found.failures)} failed ({found.failures[0]})"] if found.failures else []
            warn_caller(
                f"{count(lost, 'replicate')} of {n_reps} left out of the bootstrap: {'; '.join(reasons)}",
                BootstrapWarning,
            )
        return found
