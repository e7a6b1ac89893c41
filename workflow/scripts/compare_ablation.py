"""The job of the rule `compare_ablation`: the table of an ablation."""

from panollava.dag.script import main

if __name__ == "__main__":
    main(__file__)
