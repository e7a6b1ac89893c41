"""The job of the rule `write_stage_state`: what each stage of an experiment did."""

from panollava.dag.script import main

if __name__ == "__main__":
    main(__file__)
