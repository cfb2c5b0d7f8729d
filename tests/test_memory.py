"""The quasi-Newton memory against the two-loop recursion as it stands in the textbook."""

import numpy as np
import pytest

from mlfm.estimation.memory import Memory
from mlfm.sweep import Tree, Workers, cut

N, R, SIZE = 11, 2, 3


def two_loop(g, pairs, h0):
    """Nocedal and Wright, algorithm 7.4."""
    q, alphas = g.copy(), []
    for s, y in reversed(pairs):
        alphas.append(s @ q / (s @ y))
        q = q - alphas[-1] * y
    r = h0 * q
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        r = r + s * (alpha - y @ r / (s @ y))
    return r


def flat(F, D):
    return np.concatenate([F.ravel(), D])


@pytest.mark.parametrize("n_fixed", [0, 3])
@pytest.mark.parametrize("n_pairs", [1, 2, 3, 5])
@pytest.mark.parametrize("width", [2, 100])
def test_direction(n_pairs, n_fixed, width):
    rng = np.random.default_rng(n_pairs)
    tree = Tree.of([np.array([0, N])], [R])
    tasks = cut(tree, width)
    curvature = rng.uniform(0.5, 2, N * (R + 1))
    h0 = rng.uniform(0.5, 2, N * (R + 1))
    free = np.where(np.arange(N) < n_fixed, 0.0, 1.0)
    mask = flat(np.ones((N, R)), free)
    pairs = []
    with Workers(2) as workers:
        memory = Memory(SIZE, N, R, N, tasks, workers)
        F = rng.standard_normal((N, R))
        gF, gD = rng.standard_normal((N, R)), rng.standard_normal(N)
        for _ in range(n_pairs):
            s = rng.standard_normal(N * (R + 1))
            y = curvature * s
            F1, g1 = F + s[: N * R].reshape(N, R), gF - y[: N * R].reshape(N, R)
            memory.open_slot()
            for i, task in enumerate(tasks):
                own = task.features
                memory.record(i, F1[own], F[own], g1[own], gF[own])
            memory.close_slot(s[N * R :], y[N * R :], y[N * R :], g1)
            F, gF, gD = F1, g1, gD - y[N * R :]
            pairs.append((s * mask, y * mask))
        assert len(memory) == min(n_pairs, SIZE)

        def apply(GF, GD, before, after):
            for i, task in enumerate(tasks):
                before(i)
                GF[task.features] *= h0[: N * R].reshape(N, R)[task.features]
                after(i)
            return GD * h0[N * R :]

        out = np.empty((N, R))
        direction = memory.direction(gF, gD * free, free, apply, out)
        for task in tasks:
            memory.add_steps(direction, task.features, out[task.features])
    g = flat(gF, gD * free)
    # With these seeds no pair has so little curvature that it would be damped.
    expected = two_loop(g, pairs[-SIZE:], h0 * mask)
    # Pairs are kept in single precision.
    np.testing.assert_allclose(flat(out, direction.rest), expected, rtol=1e-5, atol=1e-5)
    assert direction.along == pytest.approx(g @ flat(out, direction.rest), rel=1e-12)
    assert direction.along_loadings == pytest.approx(np.vdot(gF, out), rel=1e-12)


def test_damping():
    """A pair with too little curvature is mixed with what the model expected, to a fifth of it (Powell 1978)."""
    rng = np.random.default_rng(0)
    tree = Tree.of([np.array([0, N])], [R])
    tasks = cut(tree, 4)
    with Workers(1) as workers:
        memory = Memory(SIZE, N, R, N, tasks, workers)
        F, g = rng.standard_normal((N, R)), rng.standard_normal((N, R))
        step = 0.1 * g  # so that s'Bs = s'g > 0
        after = g + 0.3 * step  # the gradient grew: negative curvature
        memory.open_slot()
        for i, task in enumerate(tasks):
            own = task.features
            memory.record(i, (F + step)[own], F[own], after[own], g[own])
        zero = np.zeros(N)
        memory.close_slot(zero, zero, zero, after)
        s, y = memory._SF[memory._slots[0]], memory._YF[memory._slots[0]]
    np.testing.assert_allclose(s, step, rtol=1e-6)
    s, y = s.astype(float), y.astype(float)
    assert np.vdot(s, y) == pytest.approx(0.2 * np.vdot(s, g), rel=1e-6)
    weight = 0.8 * np.vdot(s, g) / (np.vdot(s, g) - np.vdot(s, g - after))
    np.testing.assert_allclose(y, weight * (g - after) + (1 - weight) * g, rtol=1e-5)
    assert memory._SY[memory._slots[0], memory._slots[0]] == pytest.approx(np.vdot(s, y), rel=1e-6)
