"""Experiments side by side: what they scored, whether they differ, and what they answered."""

VERSION = 1
"""Raise it when the meaning of comparison.csv or comparison.html changes: the DAG then makes them again."""
