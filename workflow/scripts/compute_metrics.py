"""The job of the rule `compute_metrics`: metrics.json and its pages."""

from panollava.dag.script import main

if __name__ == "__main__":
    main(__file__)
