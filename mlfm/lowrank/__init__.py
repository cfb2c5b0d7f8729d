"""Fitting multilevel low rank matrices in the Frobenius norm: factors, ranks and groups.

Parshakova, Hastie, Darve and Boyd, *Factor Fitting, Rank Allocation, and Partitioning in Multilevel Low Rank Matrices*
(arXiv 2310.19214).
"""

from mlfm.lowrank.allocation import RankAllocation, allocate_ranks
from mlfm.lowrank.fitting import LowRankFit, fit
from mlfm.lowrank.matrix import MultilevelMatrix
from mlfm.lowrank.partitions import Partition, partition
from mlfm.lowrank.sample import SampleCovariance

__all__ = [
    "LowRankFit",
    "MultilevelMatrix",
    "Partition",
    "RankAllocation",
    "SampleCovariance",
    "allocate_ranks",
    "fit",
    "partition",
]
