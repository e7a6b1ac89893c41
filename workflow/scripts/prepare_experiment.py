"""The job of the rule `prepare_experiment`: an experiment's prepared CSVs beside its results."""

from panollava.dag.script import main

if __name__ == "__main__":
    main(__file__)
