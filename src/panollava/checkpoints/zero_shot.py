"""A native model used without training (zero-shot): no stage trained it, so checkpoint.json itself describes it.

    {"stage": null, "folder": null, "file": null, "epoch": null, …, "sha256": digest of its weights, "model_config":
    {…}}

Builds that document from a configuration, and loads the model from the document. Weights on this machine are identified
by their content, those of the hub by the commit that was loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from panollava.devices import language_dtype
from panollava.errors import CheckpointError
from panollava.files import digest_of, sha256_folder
from panollava.models.build import build_model
from panollava.models.config import ModelConfig
from panollava.models.panorama_model import PanoramaModel
from panollava.models.processor import PanoramaProcessor
from panollava.models.stage_config import native_document

AS_IT_COMES = "the model as it comes"
"""How the checkpoint was chosen of a model that no stage has trained."""
_NOTHING = dict.fromkeys(("stage", "folder", "file", "epoch", "step", "val_loss"))


def checkpoint_of_model(experiment: str, config: Mapping[str, Any], built: Path | None, digest: str) -> dict[str, Any]:
    """checkpoint.json of an experiment without stages. `config` holds the settings of `dag.settings.ZERO_SHOT`, `built`
    is the folder of a model that the DAG built, `digest` that of the slice."""
    model = zero_shot_config(config, built)
    weights, sha256 = weights_of(model)
    return {
        "experiment_name": experiment,
        **_NOTHING,
        "sha256": sha256,
        "weights": weights,
        "config_digest": digest,
        "model_config": model.to_json(),
        "precision": config["training"]["precision"],
    }


def zero_shot_config(config: Mapping[str, Any], built: Path | None) -> ModelConfig:
    """The model's configuration from an experiment's, with the size of views filled in."""
    document = native_document(config, built)
    document |= {"system_message": config["system_messages"]["default"], "use_lora": False}
    document["panorama_positions"] = config["models"]["panorama_positions"]
    model = ModelConfig.from_json(document)
    size = PanoramaProcessor.for_model(model).image_size
    return ModelConfig.from_json({**document, "image_size": list(size)})


def weights_of(model: ModelConfig) -> tuple[dict[str, str], str]:
    """The digests of the model's weights, and of the adapters of others on it, by part; and the digest of all."""
    sources = {"vlm": model.vlm_source, **({"adapter": model.adapter_source} if model.adapter_source else {})}
    weights = {part: weights_digest(source) for part, source in sources.items()}
    return weights, weights["vlm"] if len(weights) == 1 else digest_of(weights)


def weights_digest(source: str) -> str:
    """SHA-256 of a folder's content; of a hub id the commit that it resolves to. Raises CheckpointError."""
    if Path(source).is_dir():
        return sha256_folder(Path(source))
    from transformers.utils import cached_file
    from transformers.utils.hub import extract_commit_hash

    for name in ("config.json", "adapter_config.json"):
        path = cached_file(source, name, _raise_exceptions_for_missing_entries=False)
        commit = extract_commit_hash(path, None) if path else None
        if commit:
            return str(commit)
    raise CheckpointError(f"{source}: neither a folder nor a model of the hub that can be reached")


def load_zero_shot(checkpoint: Mapping[str, Any]) -> tuple[PanoramaModel, PanoramaProcessor]:
    """Model, in eval mode, and processor that `checkpoint_of_model` described. Raises CheckpointError where its weights
    are others by now."""
    model_config = ModelConfig.from_json(dict(checkpoint["model_config"]))
    for part, source in (("vlm", model_config.vlm_source), ("adapter", model_config.adapter_source)):
        recorded = checkpoint["weights"].get(part)
        if source is not None and recorded is not None and (found := weights_digest(source)) != recorded:
            raise CheckpointError(
                f"{source} is not what checkpoint.json chose: it is {found[:16]}…, chosen was {recorded[:16]}…. Remove "
                "checkpoint.json and run the same command again"
            )
    model = build_model(model_config, dtype=language_dtype(checkpoint["precision"]))
    model.eval()
    return model, PanoramaProcessor.for_model(model_config)
