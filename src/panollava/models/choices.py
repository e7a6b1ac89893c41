"""The names of what a model can be made of, for its own configuration and for that of experiments. Imports nothing."""

from __future__ import annotations

from typing import Literal, get_args

Stage = Literal["vision", "resampler", "finetune"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""In the order in which they train."""

ResamplerName = Literal["mlp", "qformer", "perceiver", "bimamba"]
StitchingMode = Literal["concat", "drop_overlap", "stride_views", "resample"]
VisionLoss = Literal["vicreg", "densecl"]
VicregMode = Literal["pairwise", "batchwise"]
PanoramaPositions = Literal["native", "panorope"]
OverlapFeatures = Literal["tower", "connector"]
Quantization = Literal["8bit", "4bit"]
LoraPart = Literal["language", "vision", "connector"]
LORA_PARTS: tuple[LoraPart, ...] = get_args(LoraPart)
"""What LoRA adapters can sit in; the composed model has them in its language model alone."""

MINIATURE_VISION = "miniature/siglip"
MINIATURE_LANGUAGE = "miniature/qwen3"
MINIATURE_VLM = "miniature/vlm"
MINIATURES = frozenset({MINIATURE_VISION, MINIATURE_LANGUAGE, MINIATURE_VLM})
"""Backbones that the DAG builds itself."""
