"""Quasi-Newton memory: pairs of steps s and falls y of the gradient along them (Nocedal and Wright, section 7.2).

The two-loop recursion is a linear combination of the gradient, the pairs and one application of the metric. Here its
weights come from the products s_i'y_j, kept from one step to the next, so that the vectors, as large as the loadings,
are read four times in all, task by task and in parallel. Uniquenesses (D), small beside the loadings (F), are kept
apart, and those that are pressed against their floor are left out of every product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlfm._kernels.pairs import add_combination, inner_products
from mlfm.sweep import Task, Workers

Floats = NDArray[np.float64]
#: Overwrites the loadings' part of a gradient by a step's, and returns the uniquenesses' part of the step.
Apply = Callable[[Floats, Floats], Floats]


class Products(NamedTuple):
    """Inner products over the loadings that a new pair (s, y) and the new gradient g bring, summed over tasks."""

    S_y: Floats  # of every s (the new one included) with the new y
    Y_s: Floats  # of every y with the new s
    S_g: Floats  # of every s with the new gradient
    rest: Floats  # s's, y'y, s'(g + y), y'g, g'g


class Memory:
    """The last pairs, and the ascent direction that they make of a gradient and a metric."""

    DAMPING = 0.2  # s'y is held above this share of s'Bs (Powell 1978)
    FLAT = 1e-9  # pairs with a smaller cosine between s and y say nothing

    def __init__(self, size: int, n: int, r: int, tasks: Sequence[Task], workers: Workers) -> None:
        self._tasks, self._workers = tasks, workers
        # One slot more than pairs: a new pair is written before the oldest is given up.
        self._SF, self._YF = np.empty((size + 1, n, r)), np.empty((size + 1, n, r))
        self._SD, self._YD = np.empty((size + 1, n)), np.empty((size + 1, n))
        self._SY = np.zeros((size + 1, size + 1))  # products over the loadings, by slot
        self._SS, self._YY, self._SG = np.zeros(size + 1), np.zeros(size + 1), np.zeros(size + 1)
        self._size, self._slots = size, list[int]()
        self._parts: list[Products] = []

    def __len__(self) -> int:
        return len(self._slots)

    def keep(self, number: int) -> None:
        """Drop all but the last ``number`` pairs."""
        self._slots = self._slots[len(self._slots) - number :] if number else []

    def open_slot(self) -> None:
        """Make room for a new pair, of which :meth:`record` writes the loadings' part."""
        self._new = next(slot for slot in range(self._size + 1) if slot not in self._slots)
        self._parts = [Products(np.empty(0), np.empty(0), np.empty(0), np.empty(0))] * len(self._tasks)

    def record(self, i: int, F: Floats, F_before: Floats, g: Floats, g_before: Floats) -> None:
        """A task's part of the new pair and of its products; arguments are the task's rows."""
        own, new = self._tasks[i].features, self._new
        s, y = self._SF[new, own], self._YF[new, own]
        np.subtract(F, F_before, out=s)
        np.subtract(g_before, g, out=y)
        slots = np.array([*self._slots, new], dtype=np.intp)
        S_y, Y_s, S_g = np.empty(len(slots)), np.empty(len(slots)), np.empty(len(slots))
        inner_products(self._SF[:, own], slots, y, S_y)
        inner_products(self._YF[:, own], slots, s, Y_s)
        inner_products(self._SF[:, own], slots, g, S_g)
        rest = np.array([np.vdot(s, s), np.vdot(y, y), np.vdot(s, g_before), np.vdot(y, g), np.vdot(g, g)])
        self._parts[i] = Products(S_y, Y_s, S_g, rest)

    def close_slot(self, sD: Floats, yD: Floats, BsD: Floats, g: Floats) -> None:
        """Take the new pair in, damped towards Bs, what the model expected the gradient to fall by.

        Over the loadings Bs is the whole gradient of before, y + g. A pair that shows no curvature at all clears the
        memory: it comes from another region.
        """
        new, slots = self._new, [*self._slots, self._new]
        S_y, Y_s, S_g, rest = (np.sum(parts, axis=0) for parts in zip(*self._parts, strict=True))
        ss, yy, sBs, yg, gg = (float(value) for value in rest)
        sBs += float(sD @ BsD)
        sy = float(S_y[-1] + sD @ yD)
        if sBs > 0 and sy < self.DAMPING * sBs:
            mix = 1 - (1 - self.DAMPING) * sBs / (sBs - sy)
            # y <- (1 - mix) y + mix Bs
            weight, only = np.array([mix]), np.zeros(1, dtype=np.intp)

            def damp(i: int) -> None:
                own = self._tasks[i].features
                add_combination(g[None, own], only, weight, self._YF[new, own])

            self._workers.run(damp, len(self._tasks))
            yD = (1 - mix) * yD + mix * BsD
            S_y += mix * S_g
            Y_s[-1] = S_y[-1]
            yy += 2 * mix * yg + mix**2 * gg
            sy = float(S_y[-1] + sD @ yD)
        self._SD[new], self._YD[new] = sD, yD
        self._SY[slots, new], self._SY[new, slots] = S_y, Y_s
        self._SS[new], self._YY[new], self._SG[slots] = ss, yy, S_g
        self._slots = slots[-self._size :] if sy > 0 else []

    def direction(self, gF: Floats, gD: Floats, free: Floats, apply: Apply, out: Floats) -> tuple[Floats, float]:
        """The direction that the pairs make of a gradient: its loadings' part in ``out``; the uniquenesses' part and
        the product with the gradient are returned.

        ``gF`` is the gradient that the last pair was recorded with; ``free`` is 1 for free uniquenesses and 0 for
        fixed ones, where ``gD`` is 0.
        """
        slots = self._usable(free)
        at = np.array(slots, dtype=np.intp)
        SD, YD = self._SD[at] * free, self._YD[at] * free
        SY = self._SY[np.ix_(at, at)] + SD @ YD.T
        Sg = self._SG[at] + SD @ gD
        k = len(slots)
        first = np.zeros(k)
        for i in reversed(range(k)):
            first[i] = (Sg[i] - first[i + 1 :] @ SY[i, i + 1 :]) / SY[i, i]

        def gradient_less_pairs(i: int) -> None:
            own = self._tasks[i].features
            out[own] = gF[own]
            add_combination(self._YF[:, own], at, -first, out[own])

        self._workers.run(gradient_less_pairs, len(self._tasks))
        dD = apply(out, gD - first @ YD) * free

        parts = np.zeros((len(self._tasks), k + 1))

        def products(i: int) -> None:
            own = self._tasks[i].features
            inner_products(self._YF[:, own], at, out[own], parts[i, :k])
            parts[i, k] = np.vdot(gF[own], out[own])

        self._workers.run(products, len(self._tasks))
        totals = parts.sum(axis=0)
        Yr, along = totals[:k] + YD @ dD, float(totals[k] + gD @ dD)
        second = np.zeros(k)
        for i in range(k):
            second[i] = first[i] - (Yr[i] + second[:i] @ SY[:i, i]) / SY[i, i]

        def add_steps(i: int) -> None:
            own = self._tasks[i].features
            add_combination(self._SF[:, own], at, second, out[own])

        self._workers.run(add_steps, len(self._tasks))
        return dD + second @ SD, along + float(second @ Sg)

    def _usable(self, free: Floats) -> list[int]:
        """Slots whose pair shows curvature over the free coordinates."""
        kept = []
        for slot in self._slots:
            sD, yD = self._SD[slot] * free, self._YD[slot]
            sy = self._SY[slot, slot] + sD @ yD
            ss, yy = self._SS[slot] + sD @ sD, self._YY[slot] + (yD * free) @ yD
            if sy > self.FLAT * np.sqrt(ss * yy):
                kept.append(slot)
        return kept
