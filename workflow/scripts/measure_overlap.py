"""The job of the rule `measure_overlap`: whether overlapping views agree."""

from panollava.dag.script import main

if __name__ == "__main__":
    main(__file__)
