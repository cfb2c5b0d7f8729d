"""Covariances in rational arithmetic: no rounding at all."""

import math
from fractions import Fraction

import numpy as np


def covariance(case, D):
    """F F' + D of a case's loadings, exactly."""
    n, labels = case.hierarchy.n_features, case.hierarchy.to_frame()
    F = [[Fraction(float(value)) for value in row] for row in case.loadings]
    sigma = [[Fraction(float(D[i])) if i == j else Fraction(0) for j in range(n)] for i in range(n)]
    paths, first = [()] * n, 0
    for depth, rank in enumerate(case.ranks):
        if depth:
            paths = [(*path, label) for path, label in zip(paths, labels.iloc[:, depth - 1], strict=True)]
        for i in range(n):
            for j in range(n):
                if paths[i] == paths[j]:
                    sigma[i][j] += sum(F[i][k] * F[j][k] for k in range(first, first + rank))
        first += rank
    return sigma


def log(number):
    """Natural logarithm of a positive rational number of any size."""

    def of(whole):
        shift = max(whole.bit_length() - 900, 0)
        return math.log(whole >> shift) + shift * math.log(2)

    return of(number.numerator) - of(number.denominator)


def solution(sigma, b):
    """sigma^-1 b rounded at the very end, and log det sigma, by Gauss-Jordan elimination."""
    n = len(sigma)
    rows = [[*sigma[i], *(Fraction(float(value)) for value in b[i])] for i in range(n)]
    logdet = 0.0
    for i in range(n):
        pivot = rows[i][i]
        logdet += log(pivot)
        rows[i] = [value / pivot for value in rows[i]]
        for j in range(n):
            if j != i and rows[j][i]:
                rows[j] = [x - rows[j][i] * y for x, y in zip(rows[j], rows[i], strict=True)]
    return np.array([[float(value) for value in row[n:]] for row in rows]), logdet


def residual(sigma, x, b):
    """b - sigma x, rounded at the very end."""
    exact = [[Fraction(float(value)) for value in row] for row in x]
    return np.array(
        [
            [
                float(Fraction(float(b[i][k])) - sum(s * row[k] for s, row in zip(sigma[i], exact, strict=True)))
                for k in range(len(b[0]))
            ]
            for i in range(len(sigma))
        ]
    )
