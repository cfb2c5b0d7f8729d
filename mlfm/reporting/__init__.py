"""Reports: results as tables in text, HTML and LaTeX."""
