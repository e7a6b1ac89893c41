"""Answers of a kind: the expected, the given, and how right it is. Nothing here knows of files or models."""
