"""The job of the rule `train_vision`: the vision stage's folder."""

from panollava.dag.script import main

if __name__ == "__main__":
    main(__file__)
