"""The job of the rule `measure_perplexity`: how probable the references are."""

from panollava.dag.script import main

if __name__ == "__main__":
    main(__file__)
