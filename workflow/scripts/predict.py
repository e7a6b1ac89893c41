"""The job of the rule `predict`: answers to the test set."""

from panollava.dag.script import main

if __name__ == "__main__":
    main(__file__)
