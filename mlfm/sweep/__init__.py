"""The sweep over the tree of groups: structure, tasks, threads, and the two passes.

Blocks own features, the tree owns factors: code here never touches an array with a feature in its shape; whoever
owns a block's data, loadings and uniquenesses hands moments in and gets posterior factors back.
"""

from mlfm.sweep.incomplete import IncompleteSweep
from mlfm.sweep.passes import Elimination, Moments, Posterior, RecordingSweep, Sweep
from mlfm.sweep.route import Means, Products, Route
from mlfm.sweep.tasks import Task, cut, finest_first, task_width
from mlfm.sweep.threads import Workers, available_cpus
from mlfm.sweep.totals import Totals
from mlfm.sweep.tree import Tree
from mlfm.sweep.variants import Variants

__all__ = [
    "Elimination",
    "IncompleteSweep",
    "Means",
    "Moments",
    "Posterior",
    "Products",
    "RecordingSweep",
    "Route",
    "Sweep",
    "Task",
    "Totals",
    "Tree",
    "Variants",
    "Workers",
    "available_cpus",
    "cut",
    "finest_first",
    "task_width",
]
