"""An exported model as transformers' classes see it: ids and pixels in, ids or a loss out.

It holds a `PanoramaVLM` (`panorama`); nothing of it is imported before a model is loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.modeling_outputs import CausalLMOutput
from transformers.modeling_utils import PreTrainedModel

from panollava.hub.config import PanollavaConfig

if TYPE_CHECKING:
    from panollava.models.vlm import PanoramaVLM

_GENERATION = ("max_new_tokens", "do_sample", "temperature", "top_p")
_TAKEN_AS_GIVEN = ("pad_token_id", "eos_token_id", "bos_token_id", "return_dict_in_generate", "use_cache")


class PanollavaForImageTextToText(PreTrainedModel):
    """`generate` and `forward` take what `PanoramaProcessor` gives for images and text.

    import panollava
    from transformers import pipeline
    ask = pipeline("image-text-to-text", model="exported")
    ask(images="panorama.jpg", text="what is behind me?", return_full_text=False)
    """

    config_class = PanollavaConfig
    base_model_prefix = "panorama"
    main_input_name = "pixel_values"
    input_modalities = ["image", "text"]  # noqa: RUF012

    def __init__(self, config: PanollavaConfig, panorama: PanoramaVLM) -> None:
        super().__init__(config)
        self.panorama = panorama
        self.generation_config = GenerationConfig()

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | Path, *args: Any, config: Any = None, dtype: Any = None,
        device_map: Any = None, trust_remote_code: bool | None = False, **options: Any,
    ) -> PanollavaForImageTextToText:  # fmt: skip
        """The model of a folder that `export` or `save_pretrained` wrote, or of a repository; in eval mode.

        `dtype` is that of the language model's weights: float32 where it is None or "auto". `device_map` may be a
        device. Raises CheckpointError as `PanoramaVLM.from_pretrained`.
        """
        from panollava.hub.folders import local_folder
        from panollava.models.vlm import PanoramaVLM

        folder = local_folder(pretrained_model_name_or_path, options)
        wanted = getattr(torch, dtype) if isinstance(dtype, str) and dtype != "auto" else dtype
        panorama = PanoramaVLM.from_pretrained(
            folder,
            dtype=wanted if isinstance(wanted, torch.dtype) else torch.float32,
            trust_remote_code=bool(trust_remote_code),
        )
        assert isinstance(panorama, PanoramaVLM)  # a native model's folder is its family's own, not of this class
        model: Any = cls(config or PanollavaConfig.from_pretrained(folder), panorama)
        model.name_or_path = model.config.name_or_path = str(pretrained_model_name_or_path)
        if device_map is not None and device_map != "auto":
            model.to(device_map[""] if isinstance(device_map, dict) else device_map)
        elif device_map == "auto" and torch.cuda.is_available():
            model.to("cuda")
        loaded: PanollavaForImageTextToText = model.eval()
        return loaded

    def save_pretrained(self, save_directory: Any, *_: Any, **__: Any) -> None:
        """Write the exported folder (`models.saving`)."""
        self.panorama.save_pretrained(save_directory)

    def push_to_hub(self, repo_id: str, **options: Any) -> Any:  # type: ignore[override]
        """Upload the exported folder; `options` are those of `hub.folders.upload`."""
        return self.panorama.push_to_hub(repo_id, **options)

    @classmethod
    def can_generate(cls) -> bool:
        return True

    def get_input_embeddings(self) -> Any:
        return self.panorama.language.model.get_input_embeddings() if self.panorama.language else None

    def forward(
        self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None,
        image_token_mask: Tensor | None = None, labels: Tensor | None = None, **_: Any,
    ) -> CausalLMOutput:  # fmt: skip
        """Logits [B, L, vocab], and with `labels` the mean loss of the supervised tokens."""
        found = self.panorama.logits_of(pixel_values, input_ids, attention_mask, image_token_mask, labels)
        return CausalLMOutput(loss=found.get("loss"), logits=found["logits"])

    @torch.no_grad()
    def generate(
        self, pixel_values: Tensor | None = None, input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None, image_token_mask: Tensor | None = None,
        generation_config: GenerationConfig | None = None, **options: Any,
    ) -> Tensor:  # fmt: skip
        """New ids [B, T], without those of the prompt. Of generation's options max_new_tokens, do_sample, temperature
        and top_p are read; others than these are refused with ValueError."""
        if pixel_values is None or input_ids is None or image_token_mask is None:
            raise ValueError("a panorama is missing: give images and text to the processor")
        stated = generation_config.to_diff_dict() if generation_config is not None else {}
        given = {key: value for key, value in {**stated, **options}.items() if value is not None}
        ignored = {*_GENERATION, *_TAKEN_AS_GIVEN, "transformers_version"}
        if unread := sorted(given.keys() - ignored):
            raise ValueError(
                f"generation options that are not read: {', '.join(unread)}. Read: {', '.join(_GENERATION)}"
            )
        chosen = {key: given[key] for key in _GENERATION if key in given}
        return self.panorama.generate_ids(pixel_values, input_ids, attention_mask, image_token_mask, **chosen)
