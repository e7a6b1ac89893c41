"""Read answers of a kind, expected and given, and grade them. Nothing here knows of files or models."""
