"""Does a language model do what this project needs of it? Tried on a few tokens as soon as it is loaded.

In: a loaded `LanguageModel`. Out: `Behaviour`, what it can do besides; a ConfigError where it cannot be used at all:
where later tokens change what earlier ones say (the answer would leak into its own loss), where embeddings do not give
the logits that their ids give, where `generate` does not go on from embeddings as `forward` does. Costs a dozen passes
of at most seventeen tokens; torch's random numbers are left as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from panollava.errors import ConfigError
from panollava.logs import LOGGER

if TYPE_CHECKING:
    from panollava.models.language import LanguageModel

_LENGTH, _SHORT, _NEW, _WINDOW = 14, 9, 3, 8
_ERRORS = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError, NotImplementedError)
Found = TypeVar("Found")


@dataclass(frozen=True)
class Behaviour:
    """`pads_left`: padded on the left, a prompt is continued as alone; else prompts are answered one by one.
    `supports_prefix_cache`: what was read is a cache of keys and values per position, which `reading` can share."""

    pads_left: bool = True
    supports_prefix_cache: bool = True


def probe(language: LanguageModel) -> Behaviour:
    """Try the model. Raises ConfigError, in one line, where it cannot be used."""
    generator = torch.Generator().manual_seed(0)
    rows = language.model.get_input_embeddings().weight.shape[0]
    ids = torch.randint(min(3, rows - 1), rows, (1, _LENGTH), generator=generator).to(language.model.device)
    noise = torch.randn(1, _LENGTH, language.hidden_size, generator=generator)
    training = language.training
    language.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            embeds = language.embed(ids).detach()
            free = (noise.to(embeds) * embeds.float().std().to(embeds)).detach()  # as visual tokens: of no id
            _check_embeddings(language, ids, embeds, free)
            _check_causal(language, free)
            _check_generate(language, free)
            with _narrow_window(language):
                _check_generate(language, free)
                by_keys = _remembers_by_keys(language, free)
            found = Behaviour(_pads_left(language, free), by_keys)
    finally:
        language.train(training)
    if not found.pads_left:
        LOGGER.info("%s: a prompt padded on the left is not continued as alone: answered one by one", _name(language))
    if not found.supports_prefix_cache:
        LOGGER.info("%s: no cache of keys and values: a picture is read anew for each of its rows", _name(language))
    return found


@torch.no_grad()
def _check_embeddings(language: LanguageModel, ids: Tensor, embeds: Tensor, free: Tensor) -> None:
    _try(language, "cannot read visual tokens, embeddings of no token", lambda: language(free.clone(), None))
    wanted = _try(language, "its forward fails", lambda: language.model(input_ids=ids, use_cache=False).logits)
    apart = _apart(language(embeds.clone(), None), wanted)
    if apart > _tolerance(embeds):
        raise ConfigError(
            f"{_name(language)} gives other logits for embeddings than for the same tokens' ids ({apart:.2g} standard "
            "deviations apart): it looks up more than one table, or scales what it looks up. Choose another language "
            "model"
        )


def _check_causal(language: LanguageModel, free: Tensor) -> None:
    """By the gradient, which is exactly zero where a position sees nothing behind it; in float32 also by the logits."""
    inputs = free.clone().requires_grad_()
    with torch.enable_grad():
        early = _try(language, "its forward pass fails", lambda: language(inputs.clone(), None)[:, :_SHORT].float())
        (gradient,) = _try(
            language, "its backward pass fails", lambda: torch.autograd.grad(early.square().sum(), inputs)
        )
    size = gradient.float().abs().amax(dim=(0, 2))  # [L]
    leaks = bool(size[_SHORT:].max() > 1e-6 * size[:_SHORT].max())
    apart = 0.0
    if free.dtype == torch.float32:
        with torch.no_grad():
            other = free.clone()
            other[:, _SHORT:] = other[:, _SHORT:].flip(2)
            apart = _apart(language(other, None)[:, :_SHORT], early.detach())
    if leaks or apart > 5e-3:
        raise ConfigError(
            f"{_name(language)} looks ahead: later tokens change what it says at earlier ones"
            f"{f' ({apart:.2g} standard deviations)' if apart else ''}, so an answer would leak into its own loss. "
            "Choose a causal language model"
        )


@torch.no_grad()
def _check_generate(language: LanguageModel, free: Tensor) -> None:
    """Tokens and logits of `generate` against those of `forward` on the same sequence."""
    made, logits = _try(language, "cannot answer", lambda: _generated(language, free, torch.ones(free.shape[:2])))
    whole = torch.cat([free, language.embed(made[:, :-1])], dim=1)
    apart = _apart(logits, language(whole, None)[:, free.shape[1] - 1 :])
    if apart > _tolerance(free):
        raise ConfigError(
            f"{_name(language)} does not continue embeddings as its forward pass reads them ({apart:.2g} standard "
            "deviations apart): it would be trained on one model and asked as another. Choose another language model"
        )


@contextmanager
def _narrow_window(language: LanguageModel) -> Iterator[None]:
    """A sliding window that the few tokens leave, so that what happens beyond it is seen."""
    config = language.model.config.get_text_config(decoder=True)
    window = getattr(config, "sliding_window", None)
    if not isinstance(window, int) or window <= _WINDOW:
        yield
        return
    config.sliding_window = _WINDOW
    try:
        yield
    finally:
        config.sliding_window = window


@torch.no_grad()
def _pads_left(language: LanguageModel, free: Tensor) -> bool:
    short = free[:, -_SHORT:]
    mask = torch.ones(2, _LENGTH)
    mask[1, :-_SHORT] = 0
    padded = torch.cat([language.embed(torch.zeros_like(mask[1:, :-_SHORT]).long().to(free.device)), short], dim=1)
    try:
        made, together = _generated(language, torch.cat([free, padded]), mask)
        wanted, alone = _generated(language, short, mask[1:, -_SHORT:])
    except _ERRORS:  # it takes no such mask
        return False
    same = int((made[1] == wanted[0]).int().cumprod(0).sum())  # what follows another token is another text
    steps = min(same + 1, _NEW)
    return _apart(together[1:, :steps], alone[:, :steps]) <= _tolerance(free)


@torch.no_grad()
def _remembers_by_keys(language: LanguageModel, free: Tensor) -> bool:
    try:
        past = language.read(free[:, :_SHORT].clone())
        if not is_shared_cache(past):
            return False
        rest = language(free[:, _SHORT:].clone(), torch.ones(1, _LENGTH, device=free.device), None, past)
    except _ERRORS:
        return False
    whole = language(free.clone(), None)[:, _SHORT:]
    return _apart(rest, whole) <= _tolerance(free)


def is_shared_cache(past: Any) -> bool:
    """Whether a cache holds keys and values by position and nothing else, so that rows may be picked from it."""
    return type(past) is DynamicCache and all(
        type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in past.layers
    )


def _generated(language: LanguageModel, embeds: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """New ids [B, _NEW] and their logits [B, _NEW, vocab], greedily."""
    out = language.model.generate(
        inputs_embeds=embeds.clone(),  # some write into it
        attention_mask=mask.long().to(embeds.device),
        max_new_tokens=_NEW,
        min_new_tokens=_NEW,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return out.sequences[:, -_NEW:], torch.stack(out.logits, dim=1)


def _try(language: LanguageModel, what: str, run: Callable[[], Found]) -> Found:
    try:
        return run()
    except _ERRORS as error:
        if "memory" in str(error).lower():
            raise
        message = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
        raise ConfigError(f"{_name(language)} {what}: {type(error).__name__}: {message[:300]}") from error


def _apart(found: Tensor, wanted: Tensor) -> float:
    """Mean distance in standard deviations of `wanted`; infinite where the shapes differ or a number is none."""
    if found.shape != wanted.shape:
        return float("inf")
    found, wanted = found.float(), wanted.float()
    finite = torch.isfinite(wanted)
    if not torch.equal(finite, torch.isfinite(found)) or not bool(finite.any()):
        return float("inf")
    distance = (found - wanted)[finite].abs().mean() / wanted[finite].std().clamp_min(1e-9)
    return float(distance)


def _tolerance(embeds: Tensor) -> float:
    return 1e-3 if embeds.dtype == torch.float32 else 0.05


def _name(language: LanguageModel) -> str:
    return f"{language.source} ({type(language.model).__name__})"
