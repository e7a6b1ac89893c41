"""The job of the rule `pretrain_vision`: a miniature vision encoder, as a Hugging Face folder."""

from panollava.dag.script import main

if __name__ == "__main__":
    main(__file__)
