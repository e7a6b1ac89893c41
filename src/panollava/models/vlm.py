"""The whole model, in the order in which the data flow through it.

    pixel_values [B, V, 3, H, W]
      -> vision      [B, V, S, D_vision]      (or `vision_features`, cached by whoever knows it is frozen)
      -> resampler   [B, V, S', D_latent]
      -> stage vision:             vicreg_projector -> overlap loss
      -> stages resampler, finetune: stitching [B, T, D_latent] -> projection [B, T, D_lm]
                                   -> spliced into the prompt's embeddings -> language model -> AR loss

The directional encoding joins the patch tokens on their way into the resampler, in the AR stages only: in the
vision stage it would hand the overlap loss the answer. Traded away: several pictures in one prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from panollava.errors import ConfigError
from panollava.models import checks, parts
from panollava.models.config import ModelConfig, Stage
from panollava.models.language import LanguageModel
from panollava.models.losses import OverlapLoss, answer_loss, overlap_loss_of, supervised_positions
from panollava.models.outputs import GenerationOutput, TrainingStageOutput, VisionStageOutput
from panollava.models.panorama_model import Grid, PanoramaModel
from panollava.models.positional import DirectionalEncoding
from panollava.models.projection import Projection, VicregProjector
from panollava.models.prompt import ChatPrompt, Context, PromptIds, prompts_of, prompts_without_picture
from panollava.models.reading import answer_losses, cache_image_prefix
from panollava.models.resamplers import build_resampler
from panollava.models.selection import select_rows
from panollava.models.shapes import plan_model_views
from panollava.models.stitching import Stitching
from panollava.models.vision import VisionEncoder

if TYPE_CHECKING:
    from panollava.models.processor import PanoramaProcessor


class PanoramaVLM(PanoramaModel):
    """A panoramic vision-language model, built from its configuration with the backbones' own weights.

    `with_language=False` builds what the vision stage needs: no language model, projection or positional
    encoding. `with_lora` (default `config.use_lora`) attaches adapters to the frozen language model, whose
    weights are held in `dtype`. Everything starts frozen but the parts that have no pre-trained weights.

    >>> from panollava import PanoramaProcessor
    >>> model = PanoramaVLM.from_checkpoint("runs/EXP1/finetune/anyres-e2p_mlp")
    >>> processor = PanoramaProcessor.for_model(model.config, model.vision)
    >>> pixels = processor.pixels(processor.open("panorama.jpg"))[None]  # [1, V, 3, H, W]
    >>> model.generate(pixels, ["what is behind me?"], max_new_tokens=8)["text"]
    [...]
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        with_language: bool = True,
        with_lora: bool | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if not isinstance(config, ModelConfig):
            raise TypeError(f"config must be a ModelConfig, got {type(config).__name__}")
        if config.is_native:
            raise TypeError(f"{config.vlm_name} is a native model: models.build.build_model makes it")
        self.config = config
        self.views = plan_model_views(config)
        self.vision = VisionEncoder(config.vision_source, config.image_size, config.trust_remote_code)
        width, grid = self.vision.hidden_size, self.vision.spec.grid
        self.resampler = build_resampler(
            config.resampler_type, width, config.latent_dimension, grid, config.resampler_options
        )
        self.vicreg_projector = VicregProjector(config.latent_dimension, config.vicreg_dim)
        self.overlap_loss = self._overlap_loss()
        self.stitching = Stitching(config.stitching_mode, self.views, self.resampler.num_tokens, self.resampler.grid)
        self.positional: DirectionalEncoding | None = None
        self.projection: Projection | None = None
        self.language: LanguageModel | None = None
        self.prompt: ChatPrompt | None = None
        if with_language:
            if config.use_projection_positional_encoding:
                self.positional = DirectionalEncoding(self.views, grid, width)
            self.language = LanguageModel(
                config.language_source, dtype=dtype, trust_remote_code=config.trust_remote_code
            )
            self.projection = Projection(
                config.latent_dimension, self.language.hidden_size, self.language.embedding_scale()
            )
            self.prompt = ChatPrompt(self.language.tokenizer, self.num_image_tokens, config.system_message)
            if config.use_lora if with_lora is None else with_lora:
                self.language.add_lora(config.lora)
        self.origin: dict[str, Any] | None = None  # what the model card says of data, training and scores
        self._trained: set[str] = set()
        self.train()

    @classmethod
    def from_checkpoint(cls, folder: str | Path, **chosen: Any) -> PanoramaModel:
        """The trained model of a stage folder (or an experiment's), in eval mode.

        `chosen` may name stage, epoch or step, `config` (a WorkflowConfig) for a folder without metadata, and
        `trust_remote_code` where its backbones may run Python code of their own. Raises
        CheckpointError where something is missing or does not fit, with the keys.
        """
        from panollava.checkpoints.loading import load_stage  # training knows models; only here the other way

        return load_stage(folder, **chosen).model

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, dtype: torch.dtype = torch.float32, trust_remote_code: bool = False
    ) -> PanoramaModel:
        """The model that `save_pretrained` wrote, of either kind, in eval mode; `dtype` is the answering weights'.

        Raises CheckpointError that names missing and unexpected keys.
        """
        from panollava.models.native_saving import load_native_folder
        from panollava.models.processor_text import is_saved_native
        from panollava.models.saving import load_model

        if is_saved_native(folder):
            return load_native_folder(Path(folder), dtype, trust_remote_code)[0]
        return load_model(cls, Path(folder), dtype, trust_remote_code)

    def save_pretrained(self, folder: str | Path, processor: PanoramaProcessor | None = None) -> None:
        """Write a Hugging Face folder (see `saving`): complete, with processor, tokenizer and model card.

        Adapters are written beside the language model; `merge_lora` first makes them part of it. Raises ConfigError
        where the folder holds other files.
        """
        from panollava.models.saving import save_model

        save_model(self, Path(folder), processor)

    def merge_lora(self) -> None:
        """Make the LoRA adapters part of the language model's weights, in place; answers stay the same."""
        if self.language is not None:
            self.language.merge_lora()

    @property
    def num_image_tokens(self) -> int:
        """T, the visual tokens of one panorama in the prompt."""
        return self.stitching.num_tokens

    @property
    def encoder(self) -> nn.Module:
        return self.vision

    @property
    def feature_shape(self) -> tuple[int, int, int]:
        return len(self.views), self.vision.spec.num_tokens, self.vision.hidden_size

    @property
    def positions(self) -> int | None:
        return None if self.language is None else self.language.positions

    @property
    def dtype(self) -> torch.dtype:
        """That of the language model's weights."""
        if self.language is None:
            return torch.float32
        weight: Tensor = self.language.model.get_input_embeddings().weight
        return weight.dtype

    @property
    def shares_prefix(self) -> bool:
        return False  # its answers are made in batches of like questions

    def encode_vision(self, pixel_values: Tensor) -> Tensor:
        """Patch tokens [B, V, S, D_vision] of normalised pixels [B, V, 3, H, W] (or [B, 3, H, W]: V = 1)."""
        pixels = checks.check_pixels(pixel_values, None, self.vision.spec.image_size)
        tokens: Tensor = self.vision(pixels.flatten(0, 1))  # [B·V, S, D_vision]
        return tokens.unflatten(0, pixels.shape[:2])  # [B, V, S, D_vision]

    def encode_panorama(self, vision_features: Tensor) -> Tensor:
        """What the language model sees of panoramas: [B, V, S, D_vision] -> [B, T, D_lm]."""
        _, projection, _ = self._language_side()
        positions = None if self.positional is None else self.positional()  # [V, S, D_vision]
        latents = self.resampler(vision_features, positions)  # [B, V, S', D_latent]
        tokens: Tensor = projection(self.stitching(latents))  # [B, T, D_lm]
        return tokens

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
        checks.check_stage(stage)
        features = self._features(pixel_values, vision_features)  # [P, V, S, D_vision]
        if stage == "vision":
            return self._vision_step(features, kept_views)
        language, _, _ = self._language_side()
        rows = len(features) if image_index is None else checks.check_image_index(image_index, len(features))
        checks.check_sequence(input_ids, attention_mask, image_token_mask, labels, rows, self.num_image_tokens)
        assert input_ids is not None and image_token_mask is not None and labels is not None
        assert attention_mask is not None
        tokens, past = self.encode_panorama(features), None  # [P, T, D_lm]
        if image_index is not None:
            if not full_logits:
                past, begin = cache_image_prefix(language, tokens, input_ids, image_token_mask, image_index)
            tokens = select_rows(tokens, image_index) if past is None else tokens  # [B, T, D_lm]
        if past is None:
            embeds = self._splice(tokens, input_ids, image_token_mask)  # [B, L, D_lm]
            # Nothing looks ahead, so padding behind a sequence needs no mask; attention without one is much faster.
            mask = None if checks.is_padded_right(attention_mask) else attention_mask
        else:
            embeds, labels, mask = language.embed(input_ids[:, begin:]), labels[:, begin:], attention_mask
        columns, counts = supervised_positions(labels)  # [K], [B, K]
        targets = labels[:, columns + 1][counts]  # [N]
        if full_logits:
            logits = language(embeds, mask)  # [B, L, vocab]
            loss = answer_loss(logits[:, columns][counts], targets)
        else:
            logits = language(embeds, mask, columns, past)[counts]  # [N, vocab]
            loss = answer_loss(logits, targets)
        tower = self.config.overlap_features == "tower"
        return self.answer_output(
            loss, logits, stage, lambda: features if tower else self.resampler(features), kept_views
        )

    @torch.no_grad()
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
        """Answers to one query per panorama; greedy unless `do_sample`. Ends at the template's end of turn.

        `temperature` is clamped to [0.1, 1.0] with a warning; `top_p` in (0, 1]. `contexts` are the turns before each;
        `streamer`, one of transformers' for a single query, is given the new ids as they come.
        """
        options = checks.sampling_options(max_new_tokens, do_sample, temperature, top_p)
        if streamer is not None:
            options["streamer"] = streamer
        language, _, prompt = self._language_side()
        with self.evaluating():
            with self.autocast():
                tokens = self.encode_panorama(self._features(pixel_values, vision_features))
            if image_index is not None:
                checks.check_image_index(image_index, len(tokens))
                tokens = tokens[image_index]
            asked = checks.check_queries(queries, len(tokens))
            batch = prompt.collate(prompts_of(prompt, asked, contexts), side="left")
            ids, mask, places = (
                batch[key].to(self.device) for key in ("input_ids", "attention_mask", "image_token_mask")
            )
            embeds = self._splice(tokens, ids, places)  # [B, L, D_lm]
            return self.written(language.generate(embeds, mask, prompt.end_ids, **options))

    @torch.no_grad()
    def answer_without_picture(
        self, queries: Sequence[str], contexts: Sequence[Context] | None = None, **sampling: Any
    ) -> GenerationOutput:
        options = checks.sampling_options(**{**checks.GREEDY, **sampling})
        language, _, prompt = self._language_side()
        with self.evaluating(), self.autocast():
            batch = prompt.collate(prompts_without_picture(prompt, queries, contexts), side="left")
            ids, mask = (batch[key].to(self.device) for key in ("input_ids", "attention_mask"))
            return self.written(language.generate(language.embed(ids), mask, prompt.end_ids, **options))

    @torch.no_grad()
    def generate_ids(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        image_token_mask: Tensor,
        *,
        max_new_tokens: int = 64,
        do_sample: bool = False,
        temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> Tensor:
        """`generate` for prompts that are ids already (padded left): the new ids [B, T_new]."""
        options = checks.sampling_options(max_new_tokens, do_sample, temperature, top_p)
        language, _, prompt = self._language_side()
        ids, places = input_ids.to(self.device), image_token_mask.to(self.device)
        mask = torch.ones_like(ids) if attention_mask is None else attention_mask.to(self.device)
        with self.evaluating():
            with self.autocast():
                tokens = self.encode_panorama(self._features(pixel_values.to(self.device), None))
            checks.check_sequence(ids, mask, places, ids, len(tokens), self.num_image_tokens)
            generated: Tensor = language.generate(self._splice(tokens, ids, places), mask, prompt.end_ids, **options)
        return generated

    def logits_of(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        image_token_mask: Tensor | None,
        labels: Tensor | None,
    ) -> dict[str, Tensor]:
        """`logits` [B, L, vocab] of whole sequences, and with `labels` the `loss` of the supervised tokens."""
        language, _, _ = self._language_side()
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        checks.check_sequence(
            input_ids, mask, image_token_mask, input_ids if labels is None else labels, len(pixel_values),
            self.num_image_tokens,
        )  # fmt: skip
        assert image_token_mask is not None
        with self.autocast():
            tokens = self.encode_panorama(self._features(pixel_values, None))
            logits = language(self._splice(tokens, input_ids, image_token_mask), mask)  # [B, L, vocab]
        if labels is None:
            return {"logits": logits}
        columns, counts = supervised_positions(labels)
        loss = answer_loss(logits[:, columns][counts], labels[:, columns + 1][counts])
        return {"loss": loss, "logits": logits}

    def push_to_hub(self, repo_id: str, processor: PanoramaProcessor | None = None, **options: Any) -> Any:
        """Upload what `save_pretrained` writes by huggingface_hub; `options` are those of `hub.folders.upload`."""
        from panollava.hub.folders import upload

        return upload(lambda folder: self.save_pretrained(folder, processor), repo_id, **options)

    def answer_losses(self, features: Tensor, batches: list[list[PromptIds]]) -> Iterator[Tensor]:
        language, _, prompt = self._language_side()
        with torch.no_grad():
            tokens = self.encode_panorama(features[None])  # [1, T, D_lm]
        yield from answer_losses(language, prompt, tokens, batches)

    @torch.no_grad()
    def token_maps(self, features: Tensor) -> dict[str, Tensor]:
        return {"encoder": features, "resampler": self.resampler(features)}

    @property
    def token_grids(self) -> dict[str, Grid]:
        return {"encoder": self.vision.spec.grid, "resampler": self.resampler.grid}

    def train(self, mode: bool = True) -> PanoramaVLM:
        """As in torch, but an encoder that is wholly frozen stays in eval mode: its features never change."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.vision.parameters()):
            self.vision.eval()
        return self

    def enable_gradient_checkpointing(self) -> None:
        """Recompute activations of the encoder's and the language model's blocks in the backward pass."""
        for part in (self.vision, self.language):
            if part is not None and part.model.supports_gradient_checkpointing:
                part.model.gradient_checkpointing_enable({"use_reentrant": False})

    def kept_numbers(self, panoramas: int, positions: int) -> int:
        trained = [any(p.requires_grad for p in block.parameters()) for block in self.vision.blocks()]
        kept = len(trained) - trained.index(True) if any(trained) else 0
        numbers = panoramas * len(self.views) * self.vision.spec.num_tokens * self.vision.hidden_size * kept
        if self.language is not None:
            blocks = self.language.model.config.get_text_config().num_hidden_layers
            numbers += positions * self.language.hidden_size * blocks
        return numbers

    def parts(self) -> dict[str, nn.Module]:
        """The parts that are there, by the names of `parts.PARTS` (a module may contain another part: LoRA
        lies inside the language model; `named_part_parameters` divides without overlap)."""
        return parts.modules_of(self)

    def named_part_parameters(self) -> dict[str, dict[str, nn.Parameter]]:
        """Every parameter exactly once: part name -> {parameter name: parameter}."""
        return parts.parameters_of(self)

    def stage_parts(self, stage: Stage) -> tuple[str, ...]:
        present = parts.modules_of(self)
        wanted = parts.STAGE_PARTS[stage]
        if stage == "finetune" and self.config.full_finetune:
            wanted += ("language_model",)
        return tuple(name for name in wanted if name in present)

    def set_trainable(self, names: Sequence[str], vision_blocks: int = 0) -> None:
        """Train the named parts and the encoder's last `vision_blocks` blocks (-1: all); freeze the rest."""
        parts.set_trainable(self, names, vision_blocks)

    def trained_state_dict(self, names: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Every tensor that this model, or one whose state it loaded, has trained (optionally of some parts)."""
        return parts.trained_state(self, self._trained, names)

    def load_trained(
        self, state: Mapping[str, Tensor], required: Sequence[str] = (), without: Sequence[str] = ()
    ) -> None:
        """Load what `trained_state_dict` returned. Raises CheckpointError listing all keys that do not fit.

        A part that is present at all must be complete (but for the encoder, whose backbone fills the rest), and
        the `required` parts must be present. Tensors of the parts in `without` are passed over: the VICReg projector
        has done its work when the vision stage ends.
        """
        kept = {key: tensor for key, tensor in state.items() if parts.part_of(key) not in without}
        parts.load_trained(self, self._trained, kept, required)

    @property
    def has_adapters(self) -> bool:
        return self.language is not None and self.language.has_lora

    def save_adapter(self, folder: str | Path) -> None:
        """Write the LoRA adapters in peft's own format, naming a base model that is there: a hub id, or a folder as the
        configuration has its path (in the DAG from the project's root)."""
        self._language_side()[0].save_adapter(folder, self.config.language_source)

    def vision_loss(self) -> OverlapLoss:
        """The vision stage's loss. Raises ConfigError where the views have nothing to compare."""
        if self.overlap_loss is None:
            (rows, columns), name = self.resampler.grid, self.config.resampler_type
            remedy = f"raise models.{name}.num_queries or " if "num_queries" in self.config.resampler_options else ""
            raise ConfigError(
                f"crop_strategy {self.config.crop_strategy!r} gives no views that share directions at "
                f"{rows}x{columns} tokens a view, so the vision stage has nothing to learn from; {remedy}leave it out: "
                "training.stages: [resampler, finetune]"
            )
        return self.overlap_loss

    def _vision_step(self, features: Tensor, kept_views: Tensor | None) -> VisionStageOutput:
        return self.overlap_output(self.vicreg_projector(self.resampler(features)), kept_views)

    def _splice(self, tokens: Tensor, input_ids: Tensor, image_token_mask: Tensor) -> Tensor:
        """The prompt's embeddings with the visual tokens in the marked places: [B, L, D_lm]."""
        language, _, _ = self._language_side()
        embeds = language.embed(input_ids)
        return embeds.masked_scatter(image_token_mask[..., None], tokens.to(embeds.dtype))

    def _features(self, pixel_values: Tensor | None, vision_features: Tensor | None) -> Tensor:
        if (pixel_values is None) == (vision_features is None):
            raise ValueError("give either pixel_values or vision_features, and not both")
        if vision_features is not None:
            return checks.check_features(vision_features, self.feature_shape)
        pixels = checks.check_pixels(pixel_values, len(self.views), self.vision.spec.image_size)
        return self.encode_vision(pixels)

    def _language_side(self) -> tuple[LanguageModel, Projection, ChatPrompt]:
        if self.language is None or self.projection is None or self.prompt is None:
            raise ConfigError(
                "this model was built without a language model (with_language=False): only stage 'vision' runs"
            )
        return self.language, self.projection, self.prompt

    def _overlap_loss(self) -> OverlapLoss | None:
        config, grid = self.config, self.resampler.grid
        if config.overlap_loss_weight and config.overlap_features == "tower":
            grid = self.vision.spec.grid
        return overlap_loss_of(config, self.views, grid)
