"""Compiled loops over blocks and over the tree: arrays in, arrays out, no model in them."""

try:
    from mlfm._kernels import blocks, em, metric, pairs, scoring, tree
except ImportError as error:
    raise ImportError(
        f"mlfm's compiled kernels cannot be imported: {error}. If Python was started in the source tree of mlfm, start "
        "it elsewhere or install with 'python -m pip install -e .'; otherwise install mlfm again with "
        "'python -m pip install mlfm'."
    ) from error

__all__ = ["blocks", "em", "metric", "pairs", "scoring", "tree"]
