"""The job of the rule `prepare_csv`: a CSV whose rows all have a verified panorama, and the rows that were rejected."""

from panollava.dag.script import main

if __name__ == "__main__":
    main(__file__)
