"""Check a language model's folder before anything is loaded, by its JSON and its file names. No torch.

In: the folder that `models.language_model_name` names. Out: the reason why it cannot be used, if its files show one.
What only weights show is checked when they are loaded (`models.probes`), at the latest before the first stage trains.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_TOKENIZER_FILES = ("tokenizer*.json", "tokenizer*.model", "vocab*", "spiece.model", "sentencepiece*", "merges.txt",
                    "*.tiktoken", "tekken.json", "tokenization_*.py", "source.spm")  # fmt: skip
# They read text in both directions, unless the configuration says that they decode.
_BOTH_WAYS = frozenset({
    "bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert",
    "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm-roberta", "xlm-roberta-xl", "xmod",
})  # fmt: skip
_NEVER = {
    "cpmant": "takes no embeddings in place of tokens",
    "prophetnet": "predicts several tokens at once, and sees them",
    "reformer": "hashes its tokens, other ones for embeddings",
    "xlm": "reads text in both directions",
    "xlnet": "reads text in both directions",
}
# A package of any one of these names loads such weights.
_QUANTISATION = {
    "aqlm": ("aqlm",), "awq": ("gptqmodel", "awq"), "bitsandbytes": ("bitsandbytes",),
    "compressed-tensors": ("compressed_tensors",), "eetq": ("eetq",), "gptq": ("gptqmodel", "auto_gptq"),
    "hqq": ("hqq",), "torchao": ("torchao",),
}  # fmt: skip
_TEXT_PARTS = ("text_config", "llm_config", "language_config", "thinker_config")


def language_folder_problem(folder: Path) -> str | None:
    """One line about what makes `folder` unusable as a language model; None where its files show no problem.

    A folder without a configuration that names a model type is not looked into.
    """
    stated = _json(folder / "config.json")
    if not isinstance(stated, dict) or not isinstance(stated.get("model_type"), str):
        return None
    found = _type_problem(stated) or _quantisation_problem(stated)
    if found is not None:
        return found
    if (folder / "adapter_config.json").is_file():
        return (
            "holds adapter_config.json beside its weights, and transformers would load that adapter without a word. "
            "Move it elsewhere, or merge it first (peft's merge_and_unload); models.adapter belongs to models.vlm_name"
        )
    if not any(True for pattern in _TOKENIZER_FILES for _ in folder.glob(pattern)):
        return "has no tokenizer files: put tokenizer.json and tokenizer_config.json beside its weights"
    return _vocabulary_problem(folder, stated)


def _type_problem(stated: dict[str, Any]) -> str | None:
    kind = stated["model_type"]
    if kind in _BOTH_WAYS and not stated.get("is_decoder"):
        return f"is a {kind}, which reads text in both directions: choose a causal language model"
    if kind in _NEVER:
        return f"is a {kind}, which {_NEVER[kind]}: choose another language model"
    texts = [stated[key].get("model_type") for key in _TEXT_PARTS if isinstance(stated.get(key), dict)]
    known = causal_types()
    if texts and known and kind not in known and not known & set(texts):
        return (
            f"is a {kind}, for whose text part transformers has no causal language model. A vision-language model as a "
            "whole goes under models.vlm_name"
        )
    return None


def _quantisation_problem(stated: dict[str, Any]) -> str | None:
    quantization = stated.get("quantization_config")
    method = quantization.get("quant_method") if isinstance(quantization, dict) else None
    packages = _QUANTISATION.get(str(method), ())
    if not packages or any(find_spec(package) is not None for package in packages):
        return None
    return (
        f"is quantised by {method}, whose package is not installed: pip install {packages[0].replace('_', '-')}, or "
        "name the checkpoint of full precision"
    )


def _vocabulary_problem(folder: Path, stated: dict[str, Any]) -> str | None:
    text = next((stated[key] for key in _TEXT_PARTS if isinstance(stated.get(key), dict)), stated)
    rows = text.get("vocab_size", stated.get("vocab_size"))
    path = folder / "tokenizer.json"
    if not isinstance(rows, int) or not path.is_file():
        return None
    status = path.stat()
    largest = _largest_piece(path, status.st_mtime_ns, status.st_size)
    if largest is None or largest[1] < rows:
        return None
    return (
        f"has a tokenizer whose ids go up to {largest[1]:,} ({largest[0]!r}), beyond its {rows:,} embeddings "
        "(vocab_size): it belongs to another checkpoint"
    )


@lru_cache(maxsize=32)
def _largest_piece(path: Path, changed: int, size: int) -> tuple[str, int] | None:
    """The piece of tokenizer.json's own vocabulary with the largest id. Time and size say which version of the file."""
    document = _json(path)
    model = document.get("model") if isinstance(document, dict) else None
    pieces = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(pieces, dict) and pieces:
        return max(((str(piece), int(number)) for piece, number in pieces.items()), key=lambda found: found[1])
    if isinstance(pieces, list) and pieces:
        return str(pieces[-1][0]), len(pieces) - 1
    return None


@lru_cache(maxsize=1)
def causal_types() -> frozenset[str]:
    """Model types for which the installed transformers has a causal language model; empty where unknown.

    Read from its source as text: importing it would bring torch into every plan.
    """
    spec = find_spec("transformers")
    if spec is None or spec.origin is None:
        return frozenset()
    path = Path(spec.origin).parent / "models/auto/modeling_auto.py"
    try:
        source = path.read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    found = re.search(r"MODEL_FOR_CAUSAL_LM_MAPPING_NAMES = OrderedDict\(\s*\[(.*?)\n\s*\]\s*\)", source, re.DOTALL)
    return frozenset(re.findall(r"\(\s*\"([^\"]+)\",", found[1])) if found else frozenset()


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
