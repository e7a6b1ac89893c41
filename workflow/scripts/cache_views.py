"""The job of the rule `cache_views`: the rendered views of a CSV's panoramas."""

from panollava.dag.script import main

if __name__ == "__main__":
    main(__file__)
