"""Formulas: text to mean terms and latent terms, levels named in these, design matrices, long data made wide."""

from mlfm.formula.design import Design
from mlfm.formula.inputs import Inputs, formula_of, long_inputs, wide_inputs

__all__ = ["Design", "Inputs", "formula_of", "long_inputs", "wide_inputs"]
