"""A native vision-language model, as the hub has it, that looks at a panorama's views as pictures of one turn.

    pixel_values [B, V, 3, h, w] (0 to 255) -> the family's own encoder and connector -> features [B, V, T, D·(1+K)]
    head (template, all views) + tail (question, answer) -> the family's own forward, which is handed the features

Three things are always done here and nowhere else: positions are given explicitly, the family's own or `panorope`'s
(`native_positions`); an attention mask is given, without which transformers takes positions that jump for several
packed sequences; and what precedes the question is read once for all questions about a panorama, where the
family's cache allows it. Weights are the hub's and stay frozen but for adapters, the connector (stage resampler) or the
language part (`full_finetune`). Traded away: features of the tower alone in the cache, where the connector trains.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GenerationConfig
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from panollava.errors import ConfigError, PromptTooLong
from panollava.logs import LOGGER
from panollava.models import checks, native_adapters, parts
from panollava.models.config import ModelConfig, Stage
from panollava.models.losses import OverlapLoss, answer_loss, overlap_loss_of, supervised_positions
from panollava.models.merging import merged
from panollava.models.native_features import FeatureLayout
from panollava.models.native_loading import load_native
from panollava.models.native_parts import LORA_NAMES, NativeParts, longest_list, part_of_adapter
from panollava.models.native_positions import head_positions, ring_of, sequence_positions
from panollava.models.native_prompt import NativePrompt, native_prompt
from panollava.models.native_tower import TowerTap
from panollava.models.outputs import GenerationOutput, TrainingStageOutput, VisionStageOutput
from panollava.models.panorama_model import Grid, PanoramaModel, no_shared_directions
from panollava.models.projection import VicregProjector
from panollava.models.prompt import IGNORED, Context, PromptIds, prompts_of, prompts_without_picture
from panollava.models.reading import checkpoints_activations, copy_rows
from panollava.models.selection import select_rows
from panollava.models.vision import settings_of
from panollava.views.strategies import plan_views

if TYPE_CHECKING:
    from panollava.models.processor import PanoramaProcessor

_SHARED_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer)
_WITHOUT_OVERLAP = "set training.stage_configs.finetune.overlap_loss_weight: 0 and leave stage vision out"


class NativeVLM(PanoramaModel):
    """A vision-language model of AutoModelForImageTextToText, built from its configuration with its own weights.

    `with_lora` (default `config.use_lora`) attaches adapters to `config.lora.parts`; `dtype` is that of the frozen
    weights. Raises ConfigError, with what is lacking, for a family that cannot be used; CheckpointError for a folder
    that lacks weights.
    """

    def __init__(
        self, config: ModelConfig, *, with_lora: bool | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        if not config.is_native:
            raise TypeError("config names no vlm_name: PanoramaVLM is the composed model")
        self.config, self.views = config, plan_views(
            config.crop_strategy, fov_deg=config.fov_deg, overlap_ratio=config.overlap_ratio,
            anyres_max_patches=config.anyres_max_patches, cubemap_poles=config.cubemap_poles,
        )  # fmt: skip
        self._trained: set[str] = set()
        self._adapted: tuple[str, ...] = ()
        self.prompt: NativePrompt = native_prompt(config, self.views)
        self.processing = self.prompt.processing
        self.model: Any = load_native(config, dtype)
        self.core_parts = NativeParts(self.model, config.vlm_source)
        self.own_end_ids = _as_ids(self.model.generation_config.eos_token_id)
        self.model.generation_config = GenerationConfig()
        text = self.model.config.get_text_config()
        self._limit = getattr(text, "max_position_embeddings", None)
        self.layout = FeatureLayout.of(self._example(), len(self.views), config.vlm_source)
        self._axes = 3 if hasattr(self.model.base_model, "get_rope_index") else 1
        self._shares = not self.processing.family.prefix_lm
        if not self._shares:
            LOGGER.info(
                "%s: question and pictures see each other, so every question reads its panorama anew",
                self.processing.family.name,
            )
        self.tap = TowerTap(self.core_parts.tower, self.processing, len(self.views), self.prompt.size)
        self.overlap_loss = self._overlap_loss()
        width = self.layout.shape[2]
        self.vicreg_projector = VicregProjector(width, config.vicreg_projector_dim or self.layout.width)
        self._head_positions, self._following = self._positions_of_head()
        self.origin: dict[str, Any] | None = None
        if config.adapter_source is not None:
            self.model = native_adapters.load_adapter(self.model, self.core_parts, config.adapter_source)
            self._adapted = native_adapters.parts_with_adapters(self.model, self.core_parts)
        elif config.use_lora if with_lora is None else with_lora:
            self._attach(config.lora.ordered_parts)
        self.requires_grad_(False)
        self.vicreg_projector.requires_grad_(True)
        self.train()

    # -- what the abstraction asks for

    @property
    def core(self) -> Any:
        """The transformers model, without peft's wrapper."""
        return self.model.get_base_model() if self._adapted else self.model

    @property
    def encoder(self) -> nn.Module:
        return _FeaturePath(self)

    @property
    def encoder_trains(self) -> bool:
        return any(parameter.requires_grad for parameter in self._feature_parameters().values())

    @property
    def feature_shape(self) -> tuple[int, int, int]:
        return self.layout.shape

    @property
    def num_image_tokens(self) -> int:
        return self.prompt.num_image_tokens

    @property
    def positions(self) -> int | None:
        return int(self._limit) if self._limit else None

    @property
    def dtype(self) -> torch.dtype:
        weight: Tensor = self.core.get_input_embeddings().weight
        return weight.dtype

    @property
    def shares_prefix(self) -> bool:
        return self._shares

    def encode_vision(self, pixel_values: Tensor) -> Tensor:
        """Features [B, V, T, D·(1+K)] of views as bytes [B, V, 3, h, w], in whatever dtype they come."""
        pixels = checks.check_pixels(pixel_values, len(self.views), self.prompt.size)
        views = pixels.round().clamp(0, 255).to(torch.uint8)
        inputs = {key: value.to(self.device) for key, value in self.processing.inputs(views).items()}
        with self.tap.listening() if self._taps_tower() else nullcontext():
            return self.layout.pack(self._encode(inputs), len(views))

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
        checks.check_stage(stage)
        features = self._features(pixel_values, vision_features)  # [P, V, T, D']
        if stage == "vision":
            return self._vision_step(features, kept_views)
        rows = len(features) if image_index is None else checks.check_image_index(image_index, len(features))
        checks.check_sequence(input_ids, attention_mask, image_token_mask, labels, rows, self.num_image_tokens)
        assert input_ids is not None and image_token_mask is not None and labels is not None
        assert attention_mask is not None
        checks.check_length(input_ids.shape[1], self.positions)
        past = None
        if image_index is not None and not full_logits and self._may_share():
            past = self._read(features, image_index)
        shown = features if image_index is None or past is not None else select_rows(features, image_index)
        batch = (input_ids, attention_mask, image_token_mask, labels)
        if full_logits:
            positions = sequence_positions(self._head_positions, self._following, attention_mask)
            extra = self._whole(shown, image_token_mask, attention_mask, labels)
            logits = self._run(input_ids, attention_mask, positions, use_cache=False, **extra)  # [B, L, vocab]
            columns, counts = supervised_positions(labels)  # [K], [B, K]
            loss = answer_loss(logits[:, columns][counts], labels[:, columns + 1][counts])
        else:
            logits, targets, _ = self._supervised(shown, past, *batch)
            loss = answer_loss(logits, targets)
        return self.answer_output(loss, logits, stage, lambda: self._tapped(features), kept_views)

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
        options = checks.sampling_options(max_new_tokens, do_sample, temperature, top_p)
        if streamer is not None:
            options["streamer"] = streamer
        with self.evaluating():
            with self.autocast():
                features = self._features(pixel_values, vision_features)
            rows = len(features) if image_index is None else checks.check_image_index(image_index, len(features))
            asked = checks.check_queries(queries, rows)
            sequences = prompts_of(self.prompt, asked, contexts)
            self._refuse_too_long(max(len(s.input_ids) for s in sequences), max_new_tokens)
            about = torch.arange(rows) if image_index is None else image_index.cpu()
            answers = self._answers(features, sequences, about, options)
        width = max(len(answer) for answer in answers)
        pad = self.prompt.pad_id
        return self.written(torch.stack([F.pad(answer, (0, width - len(answer)), value=pad) for answer in answers]))

    @torch.no_grad()
    def answer_without_picture(
        self, queries: Sequence[str], contexts: Sequence[Context] | None = None, **sampling: Any
    ) -> GenerationOutput:
        options = checks.sampling_options(**{**checks.GREEDY, **sampling})
        sequences = prompts_without_picture(self.prompt, queries, contexts)
        self._refuse_too_long(max(len(s.input_ids) for s in sequences), options["max_new_tokens"])
        batch = self.prompt.collate(sequences, side="left")
        ids, mask, places = (batch[key].to(self.device) for key in ("input_ids", "attention_mask", "image_token_mask"))
        ends = list(dict.fromkeys([*self.prompt.end_ids, *self.own_end_ids]))
        with self.evaluating(), self.autocast():
            whole = self.model.generate(
                input_ids=ids, attention_mask=mask, eos_token_id=ends, pad_token_id=self.prompt.pad_id,
                **self._types(places, None), **options,
            )  # fmt: skip
        return self.written(whole[:, ids.shape[1] :])

    @torch.no_grad()
    def answer_losses(self, features: Tensor, batches: list[list[PromptIds]]) -> Iterator[Tensor]:
        read = self._read(features[None]) if self._may_share() else None
        for sequences in batches:
            batch = self.prompt.collate(sequences, side="right")
            ids, mask, places, labels = (
                batch[key].to(self.device) for key in ("input_ids", "attention_mask", "image_token_mask", "labels")
            )
            past = copy.deepcopy(read)
            if past is not None:
                copy_rows(past, torch.zeros(len(ids), dtype=torch.long, device=self.device))
            shown = features[None].expand(len(ids), *features.shape)
            logits, targets, counted = self._supervised(shown, past, ids, mask, places, labels)
            losses = F.cross_entropy(logits.float(), targets, reduction="none").double()
            yield losses.new_zeros(len(ids)).index_add_(0, counted.nonzero()[:, 0], losses)

    def token_maps(self, features: Tensor) -> dict[str, Tensor]:
        rows, columns = self._grid()
        return {"connector": features[:, :, : rows * columns, : self.layout.width]}

    @property
    def token_grids(self) -> dict[str, Grid]:
        return {} if self.prompt.grid is None else {"connector": self.prompt.grid}

    def vision_loss(self) -> OverlapLoss:
        if self.overlap_loss is None:
            raise no_shared_directions(self.config, self.prompt.grid or (0, 0), _WITHOUT_OVERLAP)
        return self.overlap_loss

    def train(self, mode: bool = True) -> NativeVLM:
        """As in torch, but a tower of which nothing trains stays in eval mode: its features never change."""
        super().train(mode)
        if not self.encoder_trains:
            self.core_parts.tower.eval()
        return self

    def named_part_parameters(self) -> dict[str, dict[str, nn.Parameter]]:
        names = ["vision_tower", "connector", "language_model", "vicreg_projector"]
        divided: dict[str, dict[str, nn.Parameter]] = {name: {} for name in names}
        divided |= {LORA_NAMES[part]: {} for part in self._adapted}
        for key, parameter in self.named_parameters():
            divided[self.part_of(key)][key] = parameter
        return {name: found for name, found in divided.items() if found}

    def part_of(self, key: str) -> str:
        """The part that a parameter's or state's key belongs to."""
        if key.startswith("vicreg_projector."):
            return "vicreg_projector"
        plain = key.removeprefix("model.").removeprefix("base_model.model.")
        adapter = ".lora_" in plain
        host = self.core_parts.host_of(
            plain.partition(".lora_")[0] + "." if adapter else plain.replace(".base_layer", "")
        )
        return part_of_adapter(host) if adapter else host

    def stage_parts(self, stage: Stage) -> tuple[str, ...]:
        present = self.named_part_parameters()
        wanted: tuple[str, ...]
        if stage == "vision":
            wanted = ("vision_lora", "vicreg_projector")
        elif stage == "resampler":
            wanted = ("connector",)
        else:
            wanted = tuple(LORA_NAMES[part] for part in self.config.lora.ordered_parts) if self.config.use_lora else ()
            wanted += ("language_model",) if self.config.full_finetune else ()
        return tuple(name for name in wanted if name in present)

    def set_trainable(self, names: Sequence[str], vision_blocks: int = 0) -> None:
        divided = self.named_part_parameters()
        if vision_blocks or set(names) - set(divided):
            raise ValueError(f"cannot train {sorted(set(names) - set(divided))}; this model has {sorted(divided)}")
        for name, parameters in divided.items():
            for parameter in parameters.values():
                parameter.requires_grad_(name in names)
        if "connector" in names:
            for parameter in divided["connector"].values():  # what trains is held in float32
                parameter.data = parameter.data.float()
        self.train(self.training)

    def trained_state_dict(self, names: Sequence[str] | None = None) -> dict[str, Tensor]:
        self._trained.update(key for key, parameter in self.named_parameters() if parameter.requires_grad)
        return {
            key: tensor.detach().cpu()
            for key, tensor in self.state_dict().items()
            if key in self._trained and (names is None or self.part_of(key) in names)
        }

    def load_trained(
        self, state: Mapping[str, Tensor], required: Sequence[str] = (), without: Sequence[str] = ()
    ) -> None:
        """As in `PanoramaModel`; adapters that an earlier stage has trained in further parts are attached first."""
        kept = {key: tensor for key, tensor in state.items() if self._known_part(key) not in without}
        adapters = {self._known_part(key) for key in kept if ".lora_" in key}
        named = {part for part, name in LORA_NAMES.items() if name in adapters}
        if named - set(self._adapted) and not self._trained:
            self._attach([*self._adapted, *named])
        own = dict(self.named_parameters())
        present = {self.part_of(key) for key in kept if key in own}
        whole = (present | set(required)) - {"vision_tower", "language_model"}
        missing = [key for key in own if self.part_of(key) in whole and key not in kept]
        parts.refuse_other_keys(own, kept, missing)
        with torch.no_grad():
            for key, tensor in kept.items():
                if own[key].dtype != tensor.dtype and self.part_of(key) == "connector":
                    own[key].data = own[key].data.to(tensor.dtype)
                own[key].copy_(tensor)
        self._trained.update(kept)

    @property
    def has_adapters(self) -> bool:
        return bool(self._adapted)

    def save_adapter(self, folder: str | Path) -> None:
        native_adapters.save_adapter(self.model, folder, self.config.vlm_source)

    def merge_lora(self) -> None:
        if not self._adapted:
            return
        if self.config.quantization is not None:
            raise ConfigError(
                f"adapters cannot be merged into weights of {self.config.quantization}: export without --merge-lora"
            )
        from panollava.models.written import answer_logits

        with self.evaluating():
            self.model = merged(self.model, lambda: answer_logits(self))
            self._adapted = ()

    def save_pretrained(self, folder: str | Path, processor: PanoramaProcessor | None = None) -> None:
        from panollava.models.native_saving import save_native

        save_native(self, Path(folder), processor)

    def enable_gradient_checkpointing(self) -> None:
        self.core.gradient_checkpointing_enable({"use_reentrant": False})

    def kept_numbers(self, panoramas: int, positions: int) -> int:
        text = self.core.config.get_text_config()
        numbers = positions * int(text.hidden_size) * int(text.num_hidden_layers)
        if self.encoder_trains:
            patches = panoramas * len(self.views) * self.prompt.tokens_per_view * 4  # a connector joins about four
            numbers += patches * self._tower_width() * len(self.core_parts.blocks)
        return numbers

    # -- inside

    def _run(self, ids: Tensor, mask: Tensor, positions: Tensor, **options: Any) -> Tensor:
        """Logits of the model's own forward: [B, K, vocab], of the positions `logits_to_keep`."""
        logits: Tensor = self.model(input_ids=ids, attention_mask=mask, position_ids=positions, **options).logits
        return logits

    def _supervised(
        self, features: Tensor, read: Any, ids: Tensor, mask: Tensor, places: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [N, vocab] and targets [N] of the supervised tokens of sequences [B, L] padded right, and which of the
        kept columns [B, K] they are. `read` is the cache of each row's head, else `features` [B, V, T, D'] are read."""
        begin = 0 if read is None else self.prompt.picture_end
        positions = sequence_positions(self._head_positions, self._following, mask)[..., begin:]
        columns, counts = supervised_positions(labels[:, begin:])
        if read is None:
            extra: dict[str, Any] = self._whole(features, places, mask, labels)
        else:
            extra = {"past_key_values": read}
        logits = self._run(
            ids[:, begin:], mask, positions, logits_to_keep=columns, use_cache=read is not None, **extra
        )[counts]  # fmt: skip
        return logits, labels[:, begin:][:, columns + 1][counts], counts

    def _whole(self, features: Tensor, places: Tensor, mask: Tensor, labels: Tensor | None) -> dict[str, Any]:
        """What forward takes beside ids, mask and positions, for whole sequences [B, L] of [B, V, T, D']."""
        return {
            "mm_encoder_outputs": self.layout.outputs(features.to(self.dtype)),
            **self._types(places, labels),
            **self._grids_of(len(features)),
        }

    def _types(self, places: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        if self.processing.family.prefix_lm:  # 0: of the prompt, which sees all of itself; 1: of the answer
            answer = torch.zeros_like(places) if labels is None else labels != IGNORED
            return {"token_type_ids": answer.long()}
        return {key: places.long() for key in self._type_keys}

    def _grids_of(self, panoramas: int) -> dict[str, Tensor]:
        return {key: value.to(self.device).repeat(panoramas, 1) for key, value in self._grids.items()}

    def _may_share(self) -> bool:
        return self._shares and not (self.training and checkpoints_activations(self.core))

    def _read(self, features: Tensor, image_index: Tensor | None = None) -> Any:
        """The cache of the head for each panorama [P, …], or for each sequence about one; None where a family remembers
        by other things than keys and values, which cannot be copied."""
        panoramas = len(features)
        head = self.prompt.head.to(self.device).expand(panoramas, -1)
        cache = DynamicCache(config=self.core.config.get_text_config())
        mask = torch.ones_like(head)
        positions = self._head_positions.to(self.device)
        positions = positions[:, None].expand(-1, panoramas, -1) if self._axes == 3 else positions.expand(panoramas, -1)
        places = head == self.processing.image_id
        extra = self._whole(features, places, mask, None)
        self.model(
            input_ids=head, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
            logits_to_keep=1, **extra,
        )  # fmt: skip
        if not all(type(layer) in _SHARED_LAYERS for layer in cache.layers):
            if self._shares:
                kinds = ", ".join(sorted({type(layer).__name__ for layer in cache.layers}))
                LOGGER.info("%s remembers by %s: every question reads its panorama anew", self.config.vlm_name, kinds)
            self._shares = False
            return None
        if image_index is not None:
            copy_rows(cache, image_index)
        return cache

    def _answers(
        self, features: Tensor, sequences: list[PromptIds], about: Tensor, options: dict[str, Any]
    ) -> list[Tensor]:
        """New ids of each sequence, without what follows the end."""
        shared = len(features) < len(sequences) and self._may_share()
        read = None
        with self.autocast():
            read = self._read(features) if shared else None
        if read is None:
            return self._answers_of(list(range(len(sequences))), features, sequences, about, None, options)
        plain = all(type(layer) is DynamicLayer for layer in read.layers)
        lengths = [len(sequence.input_ids) for sequence in sequences]
        # Padding between the head and a question would shift a sliding window.
        groups = [list(range(len(lengths)))] if plain else [
            [row for row, length in enumerate(lengths) if length == wanted] for wanted in sorted(set(lengths))
        ]  # fmt: skip
        found: dict[int, Tensor] = {}
        for rows in groups:
            new = self._answers_of(rows, features, sequences, about, read, options)
            found |= dict(zip(rows, new, strict=True))
        return [found[row] for row in range(len(sequences))]

    def _answers_of(
        self, rows: list[int], features: Tensor, sequences: list[PromptIds], about: Tensor, read: Any,
        options: dict[str, Any],
    ) -> list[Tensor]:  # fmt: skip
        ids, mask, places = self._left_padded([sequences[row] for row in rows], behind_head=read is not None)
        order = sequence_positions(self._head_positions, self._following, mask)
        if self.processing.family.prefix_lm:
            order = order - 1  # its own `generate` counts from one by itself
        chosen = about[rows].to(self.device)
        if read is None:
            extra = self._whole(features[chosen], places, mask, None)
        else:
            past = copy.deepcopy(read)
            copy_rows(past, chosen)
            extra = {"past_key_values": past}
        ends = list(dict.fromkeys([*self.prompt.end_ids, *self.own_end_ids]))
        with self.autocast():
            whole = self.model.generate(
                input_ids=ids, attention_mask=mask, position_ids=order, eos_token_id=ends,
                pad_token_id=self.prompt.pad_id, **extra, **options,
            )  # fmt: skip
        return list(whole[:, ids.shape[1] :].unbind(0))

    def _left_padded(self, sequences: list[PromptIds], behind_head: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, mask and places of pictures [B, L]; with a head that is read already, padding follows it."""
        begin = self.prompt.picture_end if behind_head else 0
        tails = [PromptIds(s.input_ids[begin:], s.image_token_mask[begin:]) for s in sequences]
        batch = self.prompt.collate(tails, side="left")
        found = [batch[key].to(self.device) for key in ("input_ids", "attention_mask", "image_token_mask")]
        if begin:
            head = self.prompt.head.to(self.device).expand(len(sequences), -1)
            heads = [head, torch.ones_like(head), head == self.processing.image_id]
            found = [torch.cat([before, behind], dim=1) for before, behind in zip(heads, found, strict=True)]
        return found[0], found[1], found[2]

    def _encode(self, inputs: Mapping[str, Tensor]) -> Any:
        """The encoder's own output for what its processor makes of panoramas."""
        known = {key: inputs[key] for key in self._encoder_keys if key in inputs}
        first = known["pixel_values"]
        known["pixel_values"] = first.to(self.dtype) if first.is_floating_point() else first
        return self.core.base_model.get_image_features(**known, return_dict=True)

    @torch.no_grad()
    def _example(self) -> Any:
        """The encoder's output for one black panorama, and what of its inputs is the same for every other."""
        model = self.model
        base = model.base_model
        if (
            not hasattr(base, "get_image_features")
            or "mm_encoder_outputs" not in inspect.signature(model.forward).parameters
        ):
            raise ConfigError(
                f"models.vlm_name: {self.config.vlm_source} cannot be used: {type(model).__name__} "
                "of this transformers takes no image features computed before (mm_encoder_outputs, since 5.18)"
            )
        self._encoder_keys = list(inspect.signature(base.get_image_features).parameters)
        blank = torch.zeros((1, len(self.views), 3, *self.prompt.size), dtype=torch.uint8)
        inputs = self.processing.inputs(blank)
        self._grids = {key: inputs[key] for key in ("image_grid_thw",) if key in inputs}
        shown = self.processing.prompt_inputs(self.prompt._render("x"), len(self.views), self.prompt.size) if (
            not self.processing.family.prefix_lm
        ) else {}  # fmt: skip
        self._type_keys = [key for key in ("token_type_ids", "mm_token_type_ids") if key in shown]
        for key in self._type_keys:
            if not torch.equal(shown[key], (shown["input_ids"] == self.processing.image_id).long()):
                raise ConfigError(f"{self.config.vlm_source}: its {key} mark other tokens than those of pictures")
        mode = model.training
        model.eval()
        try:
            return self._encode(inputs)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise ConfigError(
                f"models.vlm_name: {self.config.vlm_source} cannot encode views of {list(self.prompt.size)} pixels: "
                f"{' '.join(str(error).split())[:300]}"
            ) from error
        finally:
            model.train(mode)

    def _positions_of_head(self) -> tuple[Tensor, int]:
        places, panorope = self.prompt.head == self.processing.image_id, self.config.panorama_positions == "panorope"
        grid = self.prompt.grid
        if panorope and grid is not None and ring_of(self.views, grid) is None:
            LOGGER.warning("models.panorama_positions: panorope has no effect: %s has no ring of views",
                           self.config.crop_strategy)  # fmt: skip
        found, following = head_positions(places, self.views, grid, axes=self._axes, panorope=panorope)
        first = 1 if self.processing.family.prefix_lm else 0
        return found + first, following + first

    def _overlap_loss(self) -> OverlapLoss | None:
        config, grid = self.config, self.prompt.grid
        if config.overlap_loss_weight and config.overlap_features == "tower":
            grid = self._tower_grid()
        return None if grid is None else overlap_loss_of(config, self.views, grid)

    @torch.no_grad()
    def _tower_grid(self) -> Grid:
        """Rows and columns of the tower's tokens of a view, as `TowerTap` hands them out."""
        blank = torch.zeros((1, len(self.views), 3, *self.prompt.size), dtype=torch.uint8)
        inputs = self.processing.inputs(blank)
        with self.tap.listening():
            self._encode(inputs)
            return self.tap.grid(self.prompt.grid)

    def _taps_tower(self) -> bool:
        return bool(self.config.overlap_loss_weight) and self.config.overlap_features == "tower" and self.training

    def _tapped(self, features: Tensor) -> Tensor:
        """What the overlap loss beside the answers' compares: [P, V, S, D] of connector or tower."""
        if self.config.overlap_features == "tower":
            return self.tap.tokens(len(features), self.prompt.grid)
        rows, columns = self._grid()
        return features[:, :, : rows * columns, : self.layout.width]

    def _vision_step(self, features: Tensor, kept_views: Tensor | None) -> VisionStageOutput:
        rows, columns = self._grid()
        return self.overlap_output(self.vicreg_projector(features[:, :, : rows * columns].float()), kept_views)

    def _features(self, pixel_values: Tensor | None, vision_features: Tensor | None) -> Tensor:
        if (pixel_values is None) == (vision_features is None):
            raise ValueError("give either pixel_values or vision_features, and not both")
        if vision_features is not None:
            return checks.check_features(vision_features, self.layout.shape)
        return self.encode_vision(cast(Tensor, pixel_values))

    def _feature_parameters(self) -> dict[str, nn.Parameter]:
        """Everything that `vision_features` depend on: tower, connector and the adapters in them."""
        outside = {"language_model", "lora", "vicreg_projector"}
        return {key: value for key, value in self.named_parameters() if self.part_of(key) not in outside}

    def _grid(self) -> Grid:
        if self.prompt.grid is None:
            raise no_shared_directions(self.config, (0, 0), _WITHOUT_OVERLAP)
        return self.prompt.grid

    def _attach(self, wanted: Sequence[str]) -> None:
        """Adapters on exactly these parts; those that are there and untrained are made anew."""
        if self._adapted:
            self.model = self.model.unload()
            self._adapted = ()
        self.model, self._adapted = native_adapters.attach(
            self.model, self.core_parts, self.config.lora.model_copy(update={"parts": list(wanted)})
        )

    def _known_part(self, key: str) -> str | None:
        """The part of a state's key, of adapters that are not attached too."""
        try:
            return self.part_of(key)
        except StopIteration:
            return None

    def _refuse_too_long(self, longest: int, wanted: int) -> None:
        if self.positions is not None and longest + wanted > self.positions:
            raise PromptTooLong(
                f"a prompt of {longest:,} tokens and an answer of up to {wanted:,} leave the model's "
                f"{self.positions:,} positions: shorten the query, or lower generation.max_new_tokens"
            )

    def _tower_width(self) -> int:
        return next(int(p.shape[-1]) for p in longest_list(self.core_parts.tower).parameters() if p.ndim == 2)


class _FeaturePath(nn.Module):
    """What a native model's features depend on, as a module whose state can be digested."""

    def __init__(self, model: NativeVLM) -> None:
        super().__init__()
        self._model = [model]  # in a list: not a child

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        model = self._model[0]
        wanted = set(model._feature_parameters())
        return {key: value for key, value in model.state_dict().items() if key in wanted}

    @property
    def settings(self) -> dict[str, Any]:
        """What features depend on beside tensors and pixels: the family's processor normalises inside the model."""
        model = self._model[0]
        images = settings_of(model.processing.processor.image_processor)
        return {"model": settings_of(model.core.config), "images": images}

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        yield from self._model[0]._feature_parameters().values()

    def to(self, *args: Any, **kwargs: Any) -> _FeaturePath:
        self._model[0].to(*args, **kwargs)
        return self

    def eval(self) -> _FeaturePath:
        self._model[0].eval()
        return self


def _as_ids(value: int | list[int] | None) -> list[int]:
    return [] if value is None else [value] if isinstance(value, int) else list(value)
