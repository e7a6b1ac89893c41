"""What every model of panoramas is, whatever it is made of: the one type that training, prediction and measures know.

    pixel_values [B, V, 3, H, W] -> `encode_vision` -> vision_features [B, V, S, D], cached where nothing before trains
    vision_features and a prompt -> `forward`: a stage's loss; `generate`: answers; `answer_losses`: surprise

Two kinds: `vlm.PanoramaVLM` composes an encoder, a resampler and a language model; `native.NativeVLM` is a
vision-language model as the hub has it. `build.build_model` chooses; nobody else asks for the kind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from panollava.errors import ConfigError
from panollava.models.config import ModelConfig, Stage
from panollava.models.losses import OverlapLoss
from panollava.models.outputs import GenerationOutput, TrainingStageOutput, VisionStageOutput
from panollava.models.prompt import ChatPrompt, Context, PromptIds
from panollava.views.strategies import View

if TYPE_CHECKING:
    from panollava.models.processor import PanoramaProcessor

Grid = tuple[int, int]


class PanoramaModel(nn.Module, ABC):
    """Panoramas and questions in, losses or answers out. Everything starts frozen but what has no trained weights.

    `prompt` is None, and nothing can be asked, where the model was built for the vision stage alone.
    """

    config: ModelConfig
    views: tuple[View, ...]
    prompt: ChatPrompt | None
    origin: dict[str, Any] | None  # what the model card says of data, training and scores

    @property
    @abstractmethod
    def encoder(self) -> nn.Module:
        """What turns pixels into `vision_features`: they depend on its tensors, its `settings` and the pixels alone."""

    @property
    @abstractmethod
    def feature_shape(self) -> tuple[int, int, int]:
        """(V, S, D): views, tokens a view and numbers a token of `vision_features`."""

    @property
    @abstractmethod
    def num_image_tokens(self) -> int:
        """T, the visual tokens of one panorama in the prompt."""

    @property
    @abstractmethod
    def positions(self) -> int | None:
        """How many tokens a sequence may have; None where nothing states a limit."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """That of the weights that answer."""

    @property
    @abstractmethod
    def shares_prefix(self) -> bool:
        """Whether several questions about one panorama are cheaper asked together than apart, in `generate`."""

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def encoder_trains(self) -> bool:
        """Whether anything before `vision_features` trains, so that they cannot be kept."""
        return any(parameter.requires_grad for parameter in self.encoder.parameters())

    def autocast(self) -> torch.autocast:
        """Outside of a trainer: half-precision arithmetic where the answering weights are held in it."""
        half = self.dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self.dtype if half else torch.bfloat16, enabled=half)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Eval mode for a while; the mode of before comes back."""
        mode = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(mode)

    def overlap_output(self, latents: Tensor, kept_views: Tensor | None) -> VisionStageOutput:
        """What the vision stage returns for the VICReg projector's latents [B, V, S, D]."""
        raw, _ = self.vision_loss()(latents, kept_views)
        loss = self.config.vicreg_loss_weight * raw
        return {
            "loss": loss,
            "vicreg_loss": loss,
            "vicreg_raw": raw,
            "vicreg_weight": self.config.vicreg_loss_weight,
            "vicreg_dim": int(latents.shape[-1]),
        }

    def answer_output(
        self,
        loss: Tensor,
        logits: Tensor,
        stage: Stage,
        compared: Callable[[], Tensor],
        kept_views: Tensor | None = None,
    ) -> TrainingStageOutput:
        """What an AR stage returns; in finetune with the overlap loss of `compared` [P, V, S, D] beside, where the
        configuration has it; `kept_views` as in `forward`."""
        output: TrainingStageOutput = {"loss": loss, "ar_loss": loss, "logits": logits}
        if self.config.overlap_loss_weight and stage == "finetune" and self.training:
            overlap, _ = self.vision_loss()(compared(), kept_views)
            output["overlap_loss"] = overlap
            output["loss"] = loss + self.config.overlap_loss_weight * overlap
        return output

    def written(self, generated_ids: Tensor) -> GenerationOutput:
        """New ids [B, T] with their text."""
        assert self.prompt is not None
        text = self.prompt.tokenizer.batch_decode(generated_ids, skip_special_tokens=True)
        return {"generated_ids": generated_ids, "text": [answer.strip() for answer in text]}

    @abstractmethod
    def encode_vision(self, pixel_values: Tensor) -> Tensor:
        """Features [B, V, S, D] of a processor's pixels [B, V, 3, H, W]."""

    @abstractmethod
    def forward(
        self,
        pixel_values: Tensor | None = None,
        vision_features: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_token_mask: Tensor | None = None,
        labels: Tensor | None = None,
        image_index: Tensor | None = None,
        kept_views: Tensor | None = None,
        *,
        stage: Stage,
        full_logits: bool = False,
    ) -> VisionStageOutput | TrainingStageOutput:
        """One step's loss. The four [B, L] tensors (see `prompt.PromptBatch`) belong to the AR stages.

        There, `image_index` (int64 [B]) says which of P < B pictures each sequence is about; None: one each.
        `kept_views` (bool [P, V]) are the views of each picture that an overlap loss compares; None: all.
        """

    @abstractmethod
    def generate(
        self,
        pixel_values: Tensor | None = None,
        queries: Sequence[str] = (),
        *,
        vision_features: Tensor | None = None,
        image_index: Tensor | None = None,
        max_new_tokens: int = 64,
        do_sample: bool = False,
        temperature: float = 1.0,
        top_p: float = 1.0,
        contexts: Sequence[Context] | None = None,
        streamer: Any = None,
    ) -> GenerationOutput:
        """Answers to one query per panorama; with `image_index` (int64 [B]) to B queries about P panoramas.

        Greedy unless `do_sample`. Ends at the template's end of turn. `temperature` is clamped to [0.1, 1.0] with a
        warning; `top_p` in (0, 1]. `contexts` are the turns of the conversation before each query. `streamer`, one of
        transformers' for a single query, is given the new ids as they come.
        """

    @abstractmethod
    def answer_without_picture(
        self, queries: Sequence[str], contexts: Sequence[Context] | None = None, **sampling: Any
    ) -> GenerationOutput:
        """Answers to queries whose prompts hold no image token; `contexts` and `sampling` as in `generate`.

        Raises ValueError where the family reads no prompt without a picture.
        """

    @abstractmethod
    def answer_losses(self, features: Tensor, batches: list[list[PromptIds]]) -> Iterator[Tensor]:
        """-log p [B] (float64) of the supervised tokens of each batch of sequences about one picture [V, S, D].

        All sequences begin alike, up to the end of the picture; that part is read once where it can be.
        """

    @abstractmethod
    def token_maps(self, features: Tensor) -> dict[str, Tensor]:
        """What overlapping views are compared by: [B, V, S', D'] of `vision_features`, by the key of `token_grids`."""

    @property
    @abstractmethod
    def token_grids(self) -> dict[str, Grid]:
        """Rows and columns of tokens a view, by what the tokens are called: "encoder", and what follows it."""

    @abstractmethod
    def vision_loss(self) -> OverlapLoss:
        """The vision stage's loss. Raises ConfigError where the views have nothing to compare."""

    @abstractmethod
    def named_part_parameters(self) -> dict[str, dict[str, nn.Parameter]]:
        """Every parameter exactly once: part name -> {parameter name: parameter}."""

    @abstractmethod
    def stage_parts(self, stage: Stage) -> tuple[str, ...]:
        """The parts that train in `stage`, of those that this model has."""

    @abstractmethod
    def set_trainable(self, names: Sequence[str], vision_blocks: int = 0) -> None:
        """Train the named parts and the encoder's last `vision_blocks` blocks (-1: all); freeze the rest."""

    @abstractmethod
    def trained_state_dict(self, names: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Every tensor that this model, or one whose state it loaded, has trained (optionally of some parts)."""

    @abstractmethod
    def load_trained(
        self, state: Mapping[str, Tensor], required: Sequence[str] = (), without: Sequence[str] = ()
    ) -> None:
        """Load what `trained_state_dict` returned. Raises CheckpointError listing all keys that do not fit."""

    @property
    @abstractmethod
    def has_adapters(self) -> bool:
        """Whether LoRA adapters are attached."""

    @abstractmethod
    def save_adapter(self, folder: str | Path) -> None:
        """Write the LoRA adapters in peft's own format, naming the base model as the configuration does."""

    @abstractmethod
    def merge_lora(self) -> None:
        """Make the LoRA adapters part of the weights, in place; answers stay the same."""

    @abstractmethod
    def save_pretrained(self, folder: str | Path, processor: PanoramaProcessor | None = None) -> None:
        """Write a complete folder that `build.load_pretrained` reads. ConfigError where it holds other files."""

    @abstractmethod
    def enable_gradient_checkpointing(self) -> None:
        """Recompute activations of the blocks in the backward pass."""

    @abstractmethod
    def kept_numbers(self, panoramas: int, positions: int) -> int:
        """How many hidden numbers the blocks between which gradients flow keep of a batch (see `activations`)."""


def no_shared_directions(config: ModelConfig, grid: Grid, remedy: str) -> ConfigError:
    """The error for an overlap loss of views that share nothing."""
    return ConfigError(
        f"crop_strategy {config.crop_strategy!r} gives no views that share directions at {grid[0]}x{grid[1]} tokens a "
        f"view, so the overlap loss has nothing to learn from; {remedy}"
    )
