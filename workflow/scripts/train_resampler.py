"""The job of the rule `train_resampler`: the resampler stage's folder."""

from panollava.dag.script import main

if __name__ == "__main__":
    main(__file__)
