"""The job of the rule `select_checkpoint`: the best checkpoint of the last stage, by name and digest."""

from panollava.dag.script import main

if __name__ == "__main__":
    main(__file__)
