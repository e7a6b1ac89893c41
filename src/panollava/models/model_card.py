"""Write the model card of a saved model: README.md with the metadata that Hugging Face's hub reads, and prose.

Builds Markdown from the model's settings and its origin (`checkpoints.card_data`; None where the model was never
trained by a stage). What is not known is left out, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from panollava.models.stages import STAGE_TABLE
from panollava.trust import HUB_ID
from panollava.zoo import zoo

_MINIATURE = "miniature/"
_IDENTIFIERS = {
    "Apache 2.0": "apache-2.0",
    "MIT": "mit",
    "Qwen Research License: no commercial use": "qwen-research",
    "Llama 3.2 Community License; access on request": "llama3.2",
    "Gemma Terms of Use; access on request": "gemma",
}
"""The licences of the zoo, as the hub calls them (qwen-research is a license_name there)."""
_SETTINGS = (
    "vision_name", "language_model_name", "resampler_type", "latent_dimension", "crop_strategy", "fov_deg",
    "overlap_ratio", "image_size", "stitching_mode", "use_projection_positional_encoding", "system_message",
)  # fmt: skip

_PIPELINE = (
    "or, in transformers' own way:", "", "```python", "import panollava", "from transformers import pipeline", "",
    'ask = pipeline("image-text-to-text", model=folder)',
    'ask(images="panorama.jpg", text="what is behind me?", return_full_text=False)', "```", "",
)  # fmt: skip
_NATIVE_SETTINGS = (
    "vlm_name", "crop_strategy", "fov_deg", "overlap_ratio", "image_size", "panorama_positions", "view_labels",
    "system_message",
)  # fmt: skip


def model_card(model: Mapping[str, Any], origin: Mapping[str, Any] | None) -> str:
    """The card of a model with the settings `model` (`ModelConfig.to_json`)."""
    name = origin["experiment"] if origin else "panoramic vision-language model"
    return "\n".join(
        [
            _front_matter(model, origin), "", f"# {name}", "",
            "A panoramic vision-language model: a 360° equirectangular photograph and a question go in, an answer "
            "comes out.", "", *_use(model), "", *_settings(model),
            *(_trained(origin) if origin else []), *(_scores(origin) if origin else []), *_licences(model), "",
        ]
    )  # fmt: skip


def _front_matter(model: Mapping[str, Any], origin: Mapping[str, Any] | None) -> str:
    """The metadata that the hub reads, as YAML between lines of dashes."""
    bases = [
        name for name in _bases(model) if "/" in name and HUB_ID.fullmatch(name) and not name.startswith(_MINIATURE)
    ]
    document: dict[str, Any] = {
        "library_name": "panollava",
        "pipeline_tag": "image-text-to-text",
        **_licence(model),
        "tags": ["panorama", "360", "equirectangular"],
    }
    if bases:
        document["base_model"] = bases
    if origin:
        if name := origin["dataset"].get("dataset_name"):
            document["datasets"] = [str(name)]
        if results := _results(origin):
            document["metrics"] = [one["type"] for one in results["metrics"]]
            document["model-index"] = [{"name": str(origin["experiment"]), "results": [results]}]
    return f"---\n{yaml.safe_dump(document, sort_keys=False, allow_unicode=True)}---"


def _bases(model: Mapping[str, Any]) -> list[str]:
    keys = ("vision_name", "language_model_name") if model.get("vlm_name") is None else ("vlm_name",)
    return [str(model[key]) for key in keys]


def _licence_of(base: str) -> str | None:
    """The hub's identifier of a base model's licence; None where this project does not know it."""
    if base.startswith(_MINIATURE):
        return "mit"  # drawn and trained by this project
    return next((_IDENTIFIERS[row.licence] for row in zoo() if row.id == base), None)


def _licence(model: Mapping[str, Any]) -> dict[str, str]:
    """The weights are under the licences of what they were made from: one identifier where these have the same one."""
    found = {_licence_of(base) for base in _bases(model)}
    only = next(iter(found))
    if len(found) == 1 and only is not None and only != "qwen-research":
        return {"license": only}
    known = "-and-".join(sorted(one for one in found if one is not None))
    return {"license": "other", "license_name": known if None not in found else "that-of-the-base-models"}


def _licences(model: Mapping[str, Any]) -> Iterator[str]:
    yield from ["", "## License", "", "These weights are made from other models and are subject to their licenses:", ""]
    for base in _bases(model):
        terms = _licence_of(base)
        yield f"* {_cell(base)}: {terms if terms is not None else 'see its own model card'}"


def _results(origin: Mapping[str, Any]) -> dict[str, Any] | None:
    """The scores as the hub's model-index has them, intervals among each metric's arguments."""
    scores = origin["evaluation"]
    found = []
    for key, metric in (scores or {"metrics": {}})["metrics"].items():
        if metric["value"] is None:
            continue
        blind = (scores["blind"] or {}).get(key)
        about = {
            **({"interval_95": [float(end) for end in metric["interval"]]} if metric.get("interval") else {}),
            **({"blind_control": float(blind)} if blind is not None else {}),
            "protocol": scores["protocol"],
        }
        found.append({"type": key, "name": key, "value": float(metric["value"]), "args": about})
    if not found:
        return None
    name = str(origin["dataset"].get("dataset_name") or "test set")
    return {
        "task": {"type": "image-text-to-text"},
        "dataset": {"name": name, "type": name, "split": "test"},
        "metrics": found,
    }


def _use(model: Mapping[str, Any]) -> Iterator[str]:
    yield from [
        "## Use", "", "```python", "from panollava import PanoramaProcessor, PanoramaVLM", "",
        "model = PanoramaVLM.from_pretrained(folder)", "processor = PanoramaProcessor.from_pretrained(folder)",
        'pixels = processor.pixels(processor.open("panorama.jpg"))[None]  # [1, V, 3, H, W]',
        'print(model.generate(pixels, ["what is behind me?"])["text"][0])', "```", "",
        *_PIPELINE,
        _loads_by_itself(model),
    ]  # fmt: skip


def _loads_by_itself(model: Mapping[str, Any]) -> str:
    if model.get("vlm_name") is not None:
        adapters = (
            ' without its adapters, which `model.load_adapter(f"{folder}/lora_weights")` adds (of a pipeline: '
            "`ask.model.load_adapter(…)`)"
            if model["use_lora"]
            else ""
        )
        return f"The folder is the family's own: `AutoModelForImageTextToText` loads it{adapters}."
    alone = "`language_model/` loads by itself with `AutoModelForCausalLM`, `vision_encoder/` with `AutoModel`."
    if not model["use_lora"]:
        return alone
    return (
        f'{alone} The adapters load with `PeftModel.from_pretrained(language_model, f"{{folder}}/lora_weights")`, '
        'or, in the folder itself, with `AutoPeftModelForCausalLM.from_pretrained("lora_weights")`.'
    )


def _settings(model: Mapping[str, Any]) -> Iterator[str]:
    yield from ["## Model", "", "| setting | value |", "|---|---|"]
    shown = _SETTINGS if model.get("vlm_name") is None else _NATIVE_SETTINGS
    yield from (f"| {key} | {_cell(model[key])} |" for key in shown)
    if model["use_lora"]:
        lora = model["lora"]
        yield f"| LoRA | rank {lora['rank']}, alpha {lora['alpha']:g}, dropout {lora['dropout']:g} |"


def _trained(origin: Mapping[str, Any]) -> Iterator[str]:
    data, epochs = origin["dataset"], origin["epochs"]
    yield from ["", "## Data and training", "", "| | |", "|---|---|"]
    yield f"| stage | {origin['stage']} |"
    for key, label in (("train_csv", "training CSV"), ("val_csv", "validation CSV"), ("test_csv", "test CSV")):
        if data.get(key):
            yield f"| {label} | {_cell(data[key])} |"
    samples = STAGE_TABLE[origin["stage"]].samples if origin["stage"] else "rows"
    for key, label in (("num_train_samples", f"training {samples}"), ("num_val_samples", f"validation {samples}")):
        if data.get(key) is not None:
            yield f"| {label} | {data[key]} |"
    if epochs:
        place = f"epoch {epochs['epoch']}, step {epochs['step']}"
        yield f"| checkpoint | {place}, validation loss {epochs['val_loss']:.4f} |"
    yield from (f"| {key} | {_cell(value)} |" for key, value in origin["training"].items() if value is not None)
    versions = ", ".join(f"{package} {version}" for package, version in origin["versions"].items() if version)
    if versions:
        yield f"| versions | {versions} |"


def _scores(origin: Mapping[str, Any]) -> Iterator[str]:
    scores = origin["evaluation"]
    if scores is None:
        return
    yield from ["", "## Metrics", "", f"{scores['num_samples']} samples, protocol `{scores['protocol']}`. The blind "
                "control answers with the pictures shuffled between samples.", "",
                "| metric | value | 95 % interval | blind control | scale | library |",
                "|---|---|---|---|---|---|"]  # fmt: skip
    for key, metric in scores["metrics"].items():
        blind = (scores["blind"] or {}).get(key)
        value = "null: " + metric["reason"] if metric["value"] is None else f"{metric['value']:.4f}"
        shown = "" if blind is None else f"{blind:.4f}"
        interval = metric.get("interval")
        between = f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else ""
        cells = (key, _cell(value), between, shown, _cell(metric["scale"]), _cell(metric["library"]))
        yield f"| {' | '.join(cells)} |"


def _cell(value: Any) -> str:
    text = " x ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return " ".join(text.replace("|", "\\|").split())
