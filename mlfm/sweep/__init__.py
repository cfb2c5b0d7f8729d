"""The sweep over the tree of groups: structure, tasks, threads, and the two passes.

Blocks own features, the tree owns factors: code here never touches an array with a feature in its shape; whoever
owns a block's data, loadings and uniquenesses hands moments in and gets posterior factors back.
"""

from mlfm.sweep.passes import Moments, Posterior, Sweep
from mlfm.sweep.tasks import Task, cut
from mlfm.sweep.threads import Workers, available_cpus
from mlfm.sweep.tree import Tree

__all__ = ["Moments", "Posterior", "Sweep", "Task", "Tree", "Workers", "available_cpus", "cut"]
