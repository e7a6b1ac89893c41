"""The job of the rule `predict_rolled`: answers about rolled panoramas."""

from panollava.dag.script import main

if __name__ == "__main__":
    main(__file__)
