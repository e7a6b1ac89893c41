"""Sizes and lengths of the miniatures' pre-training. Nothing heavy is imported: the configuration reads this."""

from __future__ import annotations

from dataclasses import dataclass

from panollava.errors import ConfigError


@dataclass(frozen=True)
class MiniatureLanguageSettings:
    """A Qwen3-type language model that learns to answer questions from notes about scenes.

    Training ends `decay_steps` after `reading_accuracy` is reached on unseen notes, at the latest at `max_steps`.
    `turns` bounds the questions of one document and `most_copies` how often its notes repeat a fact;
    `picture_positions` is the number of token positions that a picture may take. `lr` is AdamW's rate (embeddings,
    norms), `muon_lr` Muon's (matrices).
    """

    seed: int = 0
    hidden_size: int = 128
    intermediate_size: int = 256
    layers: int = 2
    heads: int = 4
    head_dim: int = 64
    max_steps: int = 1500
    decay_steps: int = 150
    batch_size: int = 32
    lr: float = 3e-3
    muon_lr: float = 0.015
    turns: int = 4
    most_copies: int = 3
    picture_positions: int = 160
    reading_accuracy: float = 0.95

    def __post_init__(self) -> None:
        _check(self, "models.miniature.language")


@dataclass(frozen=True)
class MiniatureVisionSettings:
    """A SigLIP-type vision encoder that learns to say what each patch shows.

    `views` pictures of random scenes are drawn once and mirrored at random; `batch_size` of them make a step, `steps`
    steps the training. `lr` is AdamW's rate (embeddings, norms), `muon_lr` Muon's (matrices).
    """

    seed: int = 0
    hidden_size: int = 128
    intermediate_size: int = 256
    layers: int = 4
    heads: int = 4
    image_size: int = 64
    patch_size: int = 16
    views: int = 12000
    steps: int = 900
    batch_size: int = 64
    lr: float = 2e-3
    muon_lr: float = 0.015

    def __post_init__(self) -> None:
        _check(self, "models.miniature.vision")
        if self.image_size % self.patch_size:
            raise ConfigError(
                f"models.miniature.vision.image_size ({self.image_size}) must be a multiple of patch_size "
                f"({self.patch_size})"
            )


def _check(settings: MiniatureLanguageSettings | MiniatureVisionSettings, section: str) -> None:
    for name, spec in settings.__dataclass_fields__.items():
        value = getattr(settings, name)
        if spec.type == "int":
            least = 0 if name in ("seed", "picture_positions") else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"{section}.{name} must be a whole number >= {least}, got {value!r}")
        elif isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            raise ConfigError(f"{section}.{name} must be a number > 0, got {value!r}")
    if settings.hidden_size % (2 * settings.heads):
        raise ConfigError(
            f"{section}.hidden_size ({settings.hidden_size}) must be a multiple of twice its heads ({settings.heads})"
        )
