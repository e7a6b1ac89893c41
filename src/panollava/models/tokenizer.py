"""A language model's tokenizer, whole: one that encodes text, in ids that the model's embeddings have.

In: a hub id or a folder, and the number of embeddings. Out: transformers' tokenizer. Refused in one line is what would
end in the first batch, or for one test question alone.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoTokenizer

from panollava.errors import CheckpointError, ConfigError
from panollava.models.plain_text import PlainText

_WORDS = "what is it?"


def load_tokenizer(source: str, rows: int | None, trust_remote_code: bool = False) -> Any:
    """The tokenizer. `rows` is the number of embeddings, None where it is not known.

    Raises CheckpointError where its files are not to be had, ConfigError where there are none beside the weights, where
    they need a package that is not installed, and where it makes ids that no embedding has.
    """
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    except OSError as error:
        raise CheckpointError(f"{source}: its tokenizer: {_first_line(error)}") from error
    except (ImportError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{source}: its tokenizer cannot be loaded: {_first_line(error)}. Are its files (tokenizer.json, "
            "tokenizer_config.json) beside the weights, and the package that they need installed?"
        ) from error
    if not tokenizer(_WORDS, add_special_tokens=False)["input_ids"]:
        raise ConfigError(
            f"{source} has no tokenizer files: text becomes no tokens at all. Put tokenizer.json and "
            "tokenizer_config.json beside its weights (tokenizer.save_pretrained)"
        )
    if rows is not None and (beyond := tokens_beyond(tokenizer, rows)):
        shown = ", ".join(f"{token!r} ({number})" for token, number in beyond[:4])
        raise ConfigError(
            f"{source}: its tokenizer knows tokens that its {rows:,} embeddings lack: {shown}"
            f"{f' and {len(beyond) - 4} more' if len(beyond) > 4 else ''}. It belongs to another checkpoint, or tokens "
            "were added without model.resize_token_embeddings"
        )
    return tokenizer


def tokens_beyond(tokenizer: Any, rows: int) -> list[tuple[str, int]]:
    """Tokens of prompts and texts whose ids no embedding has. Control tokens that nothing here writes do not count."""
    beyond = {number: token for token, number in tokenizer.get_vocab().items() if number >= rows}
    if not beyond:
        return []
    template = tokenizer.chat_template if isinstance(getattr(tokenizer, "chat_template", None), str) else ""
    written = {tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id}
    unused = {
        number
        for number, name in PlainText(tokenizer).control.items()
        if number not in written and name not in template
    }
    return sorted(((token, number) for number, token in beyond.items() if number not in unused), key=lambda t: t[1])


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
