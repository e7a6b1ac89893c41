"""The job of the rule `pretrain_language`: a miniature language model, as a Hugging Face folder."""

from panollava.dag.script import main

if __name__ == "__main__":
    main(__file__)
