"""Answers of a kind: what is wanted, what was said, and how right it is. Nothing here knows of files or models."""
