"""Sphinx configuration; build with ``python -m sphinx -W --keep-going -b html docs docs/_build/html``."""

import mlfm

project = "mlfm"
author = "The mlfm developers"
copyright = author
version = release = mlfm.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

# Types stand in the docstrings; signatures stay short.
autodoc_typehints = "none"
autosummary_generate = True
# The class template lists the members.
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = f"mlfm {release}"
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {page: [] for page in ("index", "first_fit", "model", "cli")}
html_theme_options = {"navigation_with_keys": False, "show_toc_level": 2}
