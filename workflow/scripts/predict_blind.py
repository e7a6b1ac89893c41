"""The job of the rule `predict_blind`: answers to the test set with the pictures shuffled between samples."""

from panollava.dag.script import main

if __name__ == "__main__":
    main(__file__)
