"""The job of the rule `judge`: what a language model makes of the answers, beside their references."""

from panollava.dag.script import main

if __name__ == "__main__":
    main(__file__)
