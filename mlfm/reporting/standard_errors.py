"""Standard errors for tables, or the reason why there are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from mlfm.results import MultilevelFactorResults


def standard_errors_of(results: MultilevelFactorResults) -> pd.Series | str:
    """Standard errors of all parameters; a text where they cannot be had."""
    try:
        return results.bse
    except ValueError as refusal:
        return str(refusal)


def why_no_errors(results: MultilevelFactorResults) -> str:
    """Why standard errors cannot be had, as far as is known without working them out; nothing where they can."""
    if results.rotation != "canonical":
        return "they are for the canonical rotation, results.unrotated"
    needs_data = results.n_missing or results.cov_type in ("oim", "opg", "robust")
    if results.model is None and needs_data and "bse" not in vars(results):
        return "the results hold no data"
    return ""


def kind_of_errors(results: MultilevelFactorResults) -> tuple[str, str]:
    """In a word and in a sentence: what the standard errors are, or why there are none."""
    errors = standard_errors_of(results)
    if isinstance(errors, str):
        return "none", f"No standard errors: {errors}."
    text = f"Standard errors: {results.cov_text}."
    if errors.isna().any():
        text += " Those of parameters that are not estimated or not identified are missing."
    return results.cov_type, text
