"""Experiments side by side: what they scored, whether they differ, and what they answered."""
