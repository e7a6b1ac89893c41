"""The job of the rule `draw_synthetic`: panoramas and CSVs that the project draws."""

from panollava.dag.script import main

if __name__ == "__main__":
    main(__file__)
