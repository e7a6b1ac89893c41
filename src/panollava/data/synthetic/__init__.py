"""The synthetic data set: scenes (what there is), captions (what can be asked), draw (files)."""
