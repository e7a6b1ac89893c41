"""Where Snakemake looks for `--logger panollava`: what `panollava run` shows of a run."""

from panollava.dag.run_console import LogHandler

__all__ = ["LogHandler"]
