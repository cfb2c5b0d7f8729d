"""Statistics of a fit: parameter counts and identification."""
