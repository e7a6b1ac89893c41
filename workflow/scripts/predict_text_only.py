"""The job of the rule `predict_text_only`: answers to the test set without any picture."""

from panollava.dag.script import main

if __name__ == "__main__":
    main(__file__)
