"""The job of the rule `pretrain_vlm`: a miniature native vision-language model, as a Hugging Face folder."""

from panollava.dag.script import main

if __name__ == "__main__":
    main(__file__)
