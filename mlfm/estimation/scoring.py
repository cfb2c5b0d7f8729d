"""Block Fisher scoring with a quasi-Newton memory (design, section 3).

The inverse block information (see mlfm.estimation.metric) is the metric of a damped L-BFGS in the coordinates
(F, D). Steps have length 1 and no line search; what keeps them safe:

- pairs are used only near a maximum (Newton decrement below a bound), a plain scoring step elsewhere;
- D moves by bounded factors; a D pressed against its floor is fixed;
- a quasi-Newton direction whose predicted gain is far from the scoring step's loses its memory, half by half;
- a step that does not gain enough is taken back: from quasi-Newton to scoring, from scoring to PX-EM, which needs
  only moments in hand and never lowers the likelihood.

All likelihoods and gradients here are per observation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlfm._kernels.blocks import gradient, leverages, px_em_update
from mlfm.estimation.memory import Memory
from mlfm.estimation.metric import Metric
from mlfm.estimation.problem import Problem
from mlfm.estimation.record import Evaluation, FitRecord
from mlfm.estimation.stopping import Stays
from mlfm.likelihood import condition, loglike, posterior_moments
from mlfm.sweep import Sweep, Task, Workers

Floats = NDArray[np.float64]

MEMORY = 10  # pairs
NEAR = 1e-3  # a feature: Newton decrement below which pairs are used
LEAST_RATIO = 0.05  # of a quasi-Newton direction's predicted gain to the scoring step's
FIRST_RATIO, MOST_RATIO = 2.0, 1e4  # the largest, doubled at each success
SHRINK, GROW, REVIVE = 0.1, 5.0, 0.1  # D stays in [SHRINK D, max(GROW D, REVIVE v)]
SUFFICIENT = 1e-4  # share of the predicted gain that a step must have
ROUNDING = 1e-13  # relative; losses below this are rounding


@dataclass(frozen=True, eq=False)
class Point:
    """Parameters with the log-likelihood, its gradient and the metric there."""

    F: Floats
    D: Floats
    llf: float
    gradient: Floats  # by F row by row, then by D
    metric: Metric
    W: list[Floats]  # second moments of the factors, of each task's leaf groups

    @property
    def vector(self) -> Floats:
        return np.concatenate([self.F.ravel(), self.D])


class Climber:
    """Evaluates points of one problem: the two passes, and the steps that can be had without another one."""

    def __init__(self, problem: Problem, workers: Workers) -> None:
        self.problem, self.workers = problem, workers
        self.sweep = Sweep(problem.tree, problem.Y.shape[1])
        self.n, self.r = len(problem.Y), problem.tree.n_factors

    def loglike(self, F: Floats, D: Floats) -> float:
        """The upward pass alone; -inf where the parameters are out of all bounds."""
        try:
            condition(self.sweep, F, D, self.problem.Y, self.workers)
        except FloatingPointError:
            return -np.inf
        value = loglike(self.sweep, D, self.problem.squares, self.problem.nobs) / self.problem.nobs
        return value if np.isfinite(value) else -np.inf

    def point(self, F: Floats, D: Floats, llf: float) -> Point:
        """The downward pass at the parameters just evaluated: gradient and metric."""
        problem = self.problem
        whole = np.empty(self.n * (self.r + 1))
        dF, dD = self.split(whole)
        h, metric = np.empty(self.n), Metric(self.sweep)
        W: dict[int, Floats] = {}

        def visit(task: Task, Z: Floats, P: Floats) -> None:
            own = task.features
            V, second = posterior_moments(task, Z, P, problem.Y, problem.nobs)
            W[own.start] = second
            gradient(F[own], D[own], V, second, problem.squares[own], problem.nobs, task.leaves, dF[own], dD[own])
            leverages(F[own], D[own], P, task.leaves, V, h[own])

        self.sweep.downward(visit, self.workers, metric.observe)
        whole /= problem.nobs
        metric.at(F, D, h)
        return Point(F, D, llf, whole, metric, [W[task.features.start] for task in self.sweep.tasks])

    def split(self, vector: Floats) -> tuple[Floats, Floats]:
        """Loadings and uniquenesses of a vector, as views."""
        return vector[: self.n * self.r].reshape(self.n, self.r), vector[self.n * self.r :]

    def fixed(self, point: Point) -> NDArray[np.intp]:
        """Positions of the uniquenesses that are pressed against their floor."""
        pressed = (self.problem.floor * (1 + 1e-9) >= point.D) & (self.split(point.gradient)[1] < 0)
        return np.flatnonzero(pressed) + self.n * self.r

    def moved(self, point: Point, direction: Floats) -> tuple[Floats, Floats]:
        """A full step along a direction, D within its bounds."""
        dF, dD = self.split(direction)
        lowest = np.maximum(self.problem.floor, SHRINK * point.D)
        highest = np.maximum(GROW * point.D, REVIVE)  # features have variance 1
        return point.F + dF, np.clip(point.D + dD, lowest, highest)

    def px_em(self, point: Point) -> tuple[Floats, Floats]:
        """The parameter-expanded EM step, from the moments that the gradient was made of: V = D dl/dF + F W."""
        problem, (dF, _) = self.problem, self.split(point.gradient)
        F, D = np.empty_like(point.F), np.empty_like(point.D)

        def step(i: int) -> None:
            task = self.sweep.tasks[i]
            own = task.features
            V = problem.nobs * point.D[own, None] * dF[own]
            for g in range(task.n_leaves):
                rows = slice(*task.leaves[g : g + 2])
                V[rows] += point.F[own][rows] @ point.W[i][g]
            px_em_update(
                V,
                point.W[i].copy(),
                problem.squares[own],
                problem.nobs,
                problem.floor[own],
                task.leaves,
                F[own],
                D[own],
            )

        self.workers.run(step, len(self.sweep.tasks))
        return F, D


def scoring(
    problem: Problem,
    start: tuple[Floats, Floats],
    record: FitRecord,
    workers: Workers,
    watch: Callable[[Evaluation], None],
) -> tuple[Floats, Floats]:
    """Climb from ``start`` until the projected gain stays below ``record.tol`` or ``record.maxiter`` is reached.

    Fills ``record`` and tells ``watch`` of every evaluation; returns the best parameters.
    """
    climb, nobs = Climber(problem, workers), problem.nobs
    memory, small_for_long = Memory(MEMORY), Stays(record.tol)
    largest_ratio = FIRST_RATIO

    def note(llf: float, gain: float, step: str, accepted: bool) -> None:
        entry = Evaluation(len(record.evaluations), llf * nobs + problem.loglike_shift, gain, step, accepted)
        record.evaluations.append(entry)
        watch(entry)

    F, D = start
    llf = climb.loglike(F, D)
    if not np.isfinite(llf):
        raise FloatingPointError("the log-likelihood of the start is not finite")
    point = climb.point(F, D, llf)
    note(llf, np.inf, "resumed" if record.evaluations else "start", True)
    while True:
        fixed = climb.fixed(point)
        slope = point.gradient.copy()
        slope[fixed] = 0

        def metric(vector: Floats, point: Point = point, fixed: NDArray[np.intp] = fixed) -> Floats:
            out = np.empty_like(vector)
            outF, outD = climb.split(out)
            outF[:], outD[:] = point.metric.apply(*climb.split(vector), workers)
            out[fixed] = 0
            return out

        plain = metric(slope)
        decrement = float(slope @ plain)
        direction, predicted, kind = plain, decrement, "scoring"
        if decrement < NEAR * climb.n:
            while len(memory):
                candidate = memory.direction(slope, fixed, metric)
                gain = float(slope @ candidate)
                if LEAST_RATIO * decrement < gain < largest_ratio * decrement:
                    direction, predicted, kind = candidate, gain, "quasi-newton"
                    break
                memory.keep(len(memory) // 2)
        expected = 0.5 * max(predicted, decrement) * nobs
        record.evaluations[-1] = record.evaluations[-1]._replace(projected_gain=expected)
        if small_for_long(expected):
            record.converged = True
            record.reason = f"the projected gain stayed below tol = {record.tol:g}"
            break
        if len(record.evaluations) > record.maxiter:
            record.reason = f"maxiter = {record.maxiter} evaluations were made"
            break

        def try_step(
            direction: Floats, kind: str, point: Point = point, expected: float = expected
        ) -> tuple[Floats, Floats, float] | None:
            F, D = climb.moved(point, direction)
            llf = climb.loglike(F, D)
            gF, gD = climb.split(point.gradient)
            predicted = float(np.vdot(gF, F - point.F) + gD @ (D - point.D))
            accepted = llf >= point.llf + SUFFICIENT * predicted - ROUNDING * abs(point.llf)
            note(llf, expected, kind, accepted)
            return (F, D, llf) if accepted else None

        new, used = try_step(direction, kind), direction
        if new is not None:
            largest_ratio = min(2 * largest_ratio, MOST_RATIO)
        else:
            largest_ratio = FIRST_RATIO
            if kind == "quasi-newton":
                memory.keep(0)
                kind = "scoring"
                new, used = try_step(plain, kind), plain
            if new is None:
                kind = "px-em"
                F, D = climb.px_em(point)
                new = F, D, climb.loglike(F, D)
                note(new[2], expected, kind, True)
        last, point = point, climb.point(*new)
        if kind != "px-em":
            s = point.vector - last.vector
            after = point.gradient.copy()
            after[climb.fixed(point)] = 0
            # What the model expected: the whole gradient along F, the part not clipped along D.
            Bs = slope.copy()
            sD, usedD = climb.split(s)[1], climb.split(used)[1]
            climb.split(Bs)[1][:] *= np.clip(np.divide(sD, usedD, out=np.ones_like(sD), where=usedD != 0), 0, 1)
            memory.add(s, slope - after, Bs)
        if decrement >= NEAR * climb.n:
            memory.keep(min(1, len(memory)))
        if kind == "px-em":
            small_for_long = Stays(record.tol)
    pressed = climb.fixed(point)
    free = point.gradient.copy()
    free[pressed] = 0
    record.score_norm = float(np.abs(free).max(initial=0))
    return point.F, point.D
