"""The rotations there are, by name: their arguments checked, and what each makes of a group's loadings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlfm.inference.simple_structure import Search, Turn, least, oblimin, promax, tidy, towards, upright
from mlfm.seeds import generator
from mlfm.wording import listing

Floats = NDArray[np.float64]
#: The family parameter of each method of the oblimin family, and whether it is oblique; None where it is given.
FAMILY: dict[str, tuple[float | None, bool]] = {
    "varimax": (1.0, False),
    "quartimax": (0.0, False),
    "biquartimax": (0.5, False),
    "orthomax": (None, False),
    "quartimin": (0.0, True),
    "oblimin": (None, True),
}
METHODS = (*FAMILY, "promax", "target")
#: Below it the search stands still: differences of the criterion, the slope squared, drown in rounding.
LEAST_TOL = 1e-8
NORMALIZE = ("kaiser", "correlation", "none")


@dataclass(frozen=True)
class Rotation:
    """A rotation that was asked for, its arguments checked."""

    method: str
    normalize: str
    gamma: float
    power: float
    oblique: bool
    search: Search

    @classmethod
    def of(
        cls, method: str, normalize: str, gamma: float | None, power: float | None, oblique: bool | None,
        n_starts: int, rng: Any, maxiter: int, tol: float, target: Any,
    ) -> Rotation:  # fmt: skip
        if method not in METHODS:
            raise ValueError(f"method must be one of {listing(METHODS, most=20)}, not {method!r}")
        if normalize not in NORMALIZE:
            raise ValueError(f"normalize must be one of {listing(NORMALIZE)}, not {normalize!r}")
        family = FAMILY.get(method)
        for name, value, goes_with in (
            ("gamma", gamma, [known for known, (given, _) in FAMILY.items() if given is None]),
            ("power", power, ["promax"]),
            ("oblique", oblique, ["target"]),
            ("target", target, ["target"]),
        ):
            if value is not None and method not in goes_with:
                raise ValueError(f"{name}: goes with method {listing(goes_with)}, not {method!r}")
        if target is None and method == "target":
            raise ValueError("target: needed with method='target'")
        for name, value in (("gamma", gamma), ("power", power), ("tol", tol)):
            if value is not None and not isinstance(value, (int, float, np.number)):
                raise TypeError(f"{name}: a number is needed, not {value!r}")
        if oblique is not None and not isinstance(oblique, (bool, np.bool_)):
            raise TypeError(f"oblique: True or False is needed, not {oblique!r}")
        if gamma is not None and not (np.isfinite(gamma) and gamma <= 1 and (method != "orthomax" or gamma >= 0)):
            bounds = "from 0 to 1" if method == "orthomax" else "at most 1 (0 or less is safe)"
            raise ValueError(f"gamma: a number {bounds} is needed, not {gamma!r}")
        if power is not None and not (np.isfinite(power) and power > 1):
            raise ValueError(f"power: a number above 1 is needed, not {power!r}")
        for name, number in (("n_starts", n_starts), ("maxiter", maxiter)):
            if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < 1:
                raise ValueError(f"{name} must be a whole number, 1 or more, not {number!r}")
        if tol is None or not tol >= LEAST_TOL:
            raise ValueError(f"tol must be {LEAST_TOL:g} or more, not {tol!r}")
        fixed = 0.0 if family is None or family[0] is None else family[0]
        return cls(
            method,
            normalize,
            fixed if gamma is None else float(gamma),
            4.0 if power is None else float(power),
            method == "promax" or bool(oblique) or (family is not None and family[1]),
            Search(int(n_starts), int(maxiter), float(tol), generator(rng)),
        )

    @property
    def words(self) -> str:
        """Its name for notes."""
        own = {"promax": f" (power {self.power:g})", "orthomax": f" (gamma {self.gamma:g})"}
        own["oblimin"] = own["orthomax"]
        kind = " oblique" if self.method == "target" and self.oblique else ""
        rows = {"kaiser": "Kaiser-normalised", "correlation": "on the scale of correlations", "none": "of raw loadings"}
        return f"{rows[self.normalize]}{kind} {self.method}{own.get(self.method, '')}"

    def turn(self, F: Floats, spread: Floats, target: Floats | None) -> Turn:
        """M of a group with loadings F, features with standard deviations ``spread``."""
        rows = np.ones(len(F))
        if self.normalize != "none":
            rows = np.linalg.norm(F, axis=1) if self.normalize == "kaiser" else spread
        rows = np.where(rows > 0, rows, 1.0)[:, None]
        A = F / rows
        # So that the criterion and its slopes are near 1, whatever the units and the number of features.
        size = np.linalg.norm(np.linalg.norm(A, axis=1), 2 if target is not None else 4)
        A = A / size
        if target is not None:
            return upright(F, least(A, towards(target / rows / size), self.oblique, self.search), target)
        if self.method == "promax":
            known = F if self.normalize == "none" else F / spread[:, None]
            return tidy(F / spread[:, None], promax(A, known, self.power, self.search))
        return tidy(F / spread[:, None], least(A, oblimin(self.gamma), self.oblique, self.search))
