"""Tells a build's report: as a table on the terminal, as Markdown. Measures nothing."""
