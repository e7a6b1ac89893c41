"""The job of the rule `compare`: scores and answers of several experiments side by side."""

from panollava.dag.script import main

if __name__ == "__main__":
    main(__file__)
