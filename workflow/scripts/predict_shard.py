"""The job of the rule `predict_shard`: a part of the answers to the test set, or of one of its controls."""

from panollava.dag.script import main

if __name__ == "__main__":
    main(__file__)
