"""The words that some settings choose among, what a name may look like, what marks a picture in a text.

Options of commands read them, too. Imports no pydantic.
"""

from __future__ import annotations

import re
from typing import Literal

Protocol = Literal["grouped", "per-annotation", "original"]
MetricName = Literal["bleu4", "meteor", "rouge_l", "spice", "cider"]
FormatName = Literal["auto", "panoenv", "osr_bench", "parquet", "llava", "csv"]
"""`auto` and the names of `data.formats.FORMATS`."""
ExtraName = Literal["perplexity", "overlap_consistency", "dino_similarity", "yaw_equivariance", "yaw_agreement"]
JUDGE_NAMES = ("judge", "judge_second", "judge_spearman", "judge_kappa")
"""What `evaluation.judge` adds: each judge's mean score, and two judges' agreement."""

IMAGE_MARK = "<image>"
"""The picture's placeholder in other projects' questions; ours has its place in the prompt."""

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
NAME_MAX_LENGTH = 100
