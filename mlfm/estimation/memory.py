"""Quasi-Newton memory: pairs of steps s and falls y of the gradient along them (Nocedal and Wright, section 7.2).

The two-loop recursion is a linear combination of the gradient, the pairs and one application of the metric. Here its
weights come from the products s_i'y_j, kept from one step to the next, so that the vectors, as large as the loadings,
are read four times in all, task by task and while other things are done with the task. They are kept in single
precision: a pair is a summary of curvature, and its products are taken of what is kept. The rest of the
parameters (x), small beside the loadings (F), is kept apart, and what of it is fixed (uniquenesses pressed against
their floor) is left out of every product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlfm._kernels.pairs import add_combination, inner_products, record_pair
from mlfm.estimation.metric import Aside
from mlfm.sweep import Task, Workers

Floats = NDArray[np.float64]
#: Applies a metric to the loadings' part of a gradient, in place, and to the part of the rest, which it returns;
#: calls its last arguments with every task, before and after.
Apply = Callable[[Floats, Floats, Aside, Aside], Floats]


class Direction(NamedTuple):
    """A quasi-Newton direction: its loadings' part is what the metric made plus steps from memory."""

    rest: Floats
    along: float  # its product with the gradient
    along_loadings: float  # the loadings' share of that
    slots: NDArray[np.intp]
    weights: Floats


class Memory:
    """The last pairs, and the ascent direction that they make of a gradient and a metric."""

    DAMPING = 0.2  # s'y is held above this share of s'Bs (Powell 1978)
    FLAT = 1e-9  # pairs with a smaller cosine between s and y say nothing

    def __init__(self, size: int, n: int, r: int, rest: int, tasks: Sequence[Task], workers: Workers) -> None:
        self._tasks, self._workers = tasks, workers
        self._SF, self._YF = np.empty((size, n, r), np.float32), np.empty((size, n, r), np.float32)
        self._Sx, self._Yx = np.empty((size, rest)), np.empty((size, rest))
        # Over the loadings, by slot: s_i'y_j of pairs i no younger than j, s's, y'y, and s'g of the present gradient.
        self._SY = np.zeros((size, size))
        self._SS, self._YY, self._SG = np.zeros(size), np.zeros(size), np.zeros(size)
        self._size, self._slots = size, list[int]()
        self._parts = np.empty((len(tasks), 0))

    def __len__(self) -> int:
        return len(self._slots)

    def keep(self, number: int) -> None:
        """Drop all but the last ``number`` pairs."""
        self._slots = self._slots[len(self._slots) - number :] if number else []

    def open_slot(self) -> None:
        """Make room for a new pair, of which :meth:`record` writes the loadings' part."""
        self.keep(min(len(self._slots), self._size - 1))
        self._new = next(slot for slot in range(self._size) if slot not in self._slots)
        self._parts = np.empty((len(self._tasks), len(self._slots) + 6))

    def record(self, i: int, F: Floats, F_before: Floats, g: Floats, g_before: Floats) -> None:
        """A task's part of the new pair and of its products; arguments are the task's rows."""
        own, new, older = self._tasks[i].features, self._new, len(self._slots)
        record_pair(
            F, F_before, g, g_before, self._SF[:, own], np.array(self._slots, dtype=np.intp),
            self._SF[new, own], self._YF[new, own], self._parts[i, :older], self._parts[i, older:],
        )  # fmt: skip

    def close_slot(self, sx: Floats, yx: Floats, Bsx: Floats, g: Floats) -> None:
        """Take the new pair in, damped towards Bs, what the model expected the gradient to fall by.

        Over the loadings Bs is the whole gradient of before, y + g. A pair that shows no curvature at all clears the
        memory: it comes from another region.
        """
        new, older = self._new, np.array(self._slots, dtype=np.intp)
        totals = self._parts.sum(axis=0)
        S_g, (ss, sy, yy, sg, yg, gg) = totals[: len(older)], totals[len(older) :].tolist()
        S_y = self._SG[older] - S_g  # y is the fall of g
        sBs, s_y = sy + sg + float(sx @ Bsx), sy + float(sx @ yx)
        if sBs > 0 and s_y < self.DAMPING * sBs:
            mix = 1 - (1 - self.DAMPING) * sBs / (sBs - s_y)
            # y <- (1 - mix) y + mix Bs, and y - Bs = -g over the loadings
            y = self._YF[new]

            def damp(i: int) -> None:
                own = self._tasks[i].features
                y[own] += mix * g[own]

            self._workers.run(damp, len(self._tasks))
            yx = (1 - mix) * yx + mix * Bsx
            S_y, sy, yy = S_y + mix * S_g, sy + mix * sg, yy + 2 * mix * yg + mix**2 * gg
            s_y = sy + float(sx @ yx)
        self._Sx[new], self._Yx[new] = sx, yx
        self._SY[older, new], self._SY[new, new] = S_y, sy
        self._SS[new], self._YY[new], self._SG[older], self._SG[new] = ss, yy, S_g, sg
        self._slots = [*self._slots, new] if s_y > 0 else []

    def renew(self, gF: Floats) -> None:
        """Take the products of the steps with the gradient anew, at a point that no step of the memory led to."""
        at = np.array(self._slots, dtype=np.intp)
        parts = np.empty((len(self._tasks), len(at)))

        def products(i: int) -> None:
            own = self._tasks[i].features
            inner_products(self._SF[:, own], at, gF[own], parts[i])

        self._workers.run(products, len(self._tasks))
        self._SG[at] = parts.sum(axis=0)

    def direction(self, gF: Floats, gx: Floats, free: Floats, apply: Apply, out: Floats) -> Direction:
        """The direction that the pairs make of a gradient; ``out`` takes what the metric makes, see :meth:`add_steps`.

        ``gF`` is the gradient that the last pair was recorded with; ``free`` is 1 for what of the rest
        is free and 0 for what is fixed, where ``gx`` is 0.
        """
        slots = self._usable(free)
        at = np.array(slots, dtype=np.intp)
        Sx, Yx = self._Sx[at], self._Yx[at]
        Sx *= free
        Yx *= free
        SY = self._SY[np.ix_(at, at)] + Sx @ Yx.T
        Sg = self._SG[at] + Sx @ gx
        k = len(slots)
        first = np.zeros(k)
        for i in reversed(range(k)):
            first[i] = (Sg[i] - first[i + 1 :] @ SY[i, i + 1 :]) / SY[i, i]
        parts = np.empty((len(self._tasks), k + 1))

        def gradient_less_pairs(i: int) -> None:
            own = self._tasks[i].features
            out[own] = gF[own]
            add_combination(self._YF[:, own], at, -first, out[own])

        def products(i: int) -> None:
            own = self._tasks[i].features
            inner_products(self._YF[:, own], at, out[own], parts[i, :k])
            parts[i, k] = np.vdot(gF[own], out[own])

        dx = apply(out, gx - first @ Yx, gradient_less_pairs, products) * free

        totals = parts.sum(axis=0)
        Yr = totals[:k] + Yx @ dx
        second = np.zeros(k)
        for i in range(k):
            second[i] = first[i] - (Yr[i] + second[:i] @ SY[:i, i]) / SY[i, i]
        dx = dx + second @ Sx
        along_loadings = float(totals[k] + second @ self._SG[at])
        return Direction(dx, along_loadings + float(gx @ dx), along_loadings, at, second)

    def add_steps(self, direction: Direction, own: slice, x: Floats) -> None:
        """Add a direction's steps from memory to x, the rows ``own`` of an array like the loadings."""
        add_combination(self._SF[:, own], direction.slots, direction.weights, x)

    def _usable(self, free: Floats) -> list[int]:
        """Slots whose pair shows curvature over the free coordinates."""
        kept = []
        for slot in self._slots:
            sx, yx = self._Sx[slot] * free, self._Yx[slot]
            sy = self._SY[slot, slot] + sx @ yx
            ss, yy = self._SS[slot] + sx @ sx, self._YY[slot] + (yx * free) @ yx
            if sy > self.FLAT * np.sqrt(ss * yy):
                kept.append(slot)
        return kept
