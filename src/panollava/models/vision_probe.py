"""Is the last hidden state of an encoder that nobody here knows made of prefix tokens, then patches row by row?

Changes one patch of a picture after another in the encoder's input: the token that changes must be that patch's own.
Blocks are made the identity meanwhile, so that attention spreads nothing. What is laid out otherwise - tuples, maps,
merged patches, class or register tokens behind the patches, patches in columns - is refused with what was found.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from panollava.errors import ConfigError

_MOST_PATCHES = 24
_MANY_PATCHES = 1024


@torch.no_grad()
def check_layout(
    name: str, forward: Callable[[Tensor], Any], blocks: nn.ModuleList | None, size: tuple[int, int],
    grid: tuple[int, int], width: int,
) -> int:  # fmt: skip
    """The number of prefix tokens of an encoder whose `forward` takes pixels [1, 3, H, W] of `size`.

    `grid` is (rows, columns) of patches, `width` the size of a token; `blocks` are its blocks where they were found.
    Raises ConfigError.
    """
    pixels = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    with _identity(blocks):
        base = _tokens(name, forward, pixels, size, grid, width)
        prefix = base.shape[1] - grid[0] * grid[1]
        if prefix < 0:
            raise ConfigError(
                f"{name} returns {base.shape[1]} tokens for a view of {list(size)} pixels, fewer than its "
                f"{grid[0]} x {grid[1]} patches: encoders that merge or leave out patches cannot be used"
            )
        both = _tokens(name, forward, torch.cat([pixels, _with_patch_moved(pixels, 0, grid)]), size, grid, width)
        if not torch.allclose(both[:1], base, rtol=1e-3, atol=1e-3 * float(base.abs().max())):
            raise ConfigError(f"{name} gives a view other tokens where another view is beside it")
        moved = {}
        for place in _places(grid):
            changed = _with_patch_moved(pixels, place, grid)
            difference = _tokens(name, forward, changed, size, grid, width) - base
            moved[place] = int(difference.norm(dim=2)[0].argmax())
    rows, columns = grid
    right = {place: prefix + place for place in moved}
    if moved == right:
        return prefix
    behind = {place: place + shift for shift in range(prefix) for place in moved if moved[place] == place + shift}
    by_columns = {place: prefix + place % columns * rows + place // columns for place in moved}
    if moved == by_columns:
        what = "its patch tokens stand column by column"
    elif behind.keys() == moved.keys() and prefix:
        what = f"its {prefix} tokens that are no patches do not all stand before the patches"
    else:
        wrong = next(place for place in moved if moved[place] != right[place])
        what = f"patch {wrong} moves token {moved[wrong]} and not {right[wrong]}"
    raise ConfigError(
        f"{name}: {what}; expected are prefix tokens and then patches row by row from the top left. Use another "
        "encoder, or one whose own code orders them so"
    )


def unused_parameters(model: nn.Module, forward: Callable[[Tensor], Any], size: tuple[int, int]) -> tuple[str, ...]:
    """Names of the parameters that the last hidden state does not pass: nothing would ever train them."""
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    parameters = dict(model.named_parameters())
    try:
        for parameter in parameters.values():
            parameter.requires_grad_(parameter.is_floating_point())
        hidden = forward(torch.zeros(1, 3, *size)).last_hidden_state
        found = torch.autograd.grad(hidden.sum(), list(parameters.values()), allow_unused=True)
    finally:
        for name, parameter in parameters.items():
            parameter.requires_grad_(before[name])
    return tuple(name for name, gradient in zip(parameters, found, strict=True) if gradient is None)


def shallow(config: Any) -> Any:
    """The same configuration with one block: the order of tokens does not depend on how many follow."""
    small = copy.deepcopy(config)
    small.num_hidden_layers = 1
    return small


def _tokens(
    name: str,
    forward: Callable[[Tensor], Any],
    pixels: Tensor,
    size: tuple[int, int],
    grid: tuple[int, int],
    width: int,
) -> Tensor:
    try:
        output = forward(pixels)
    except ConfigError:
        raise
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        shape = [len(pixels), 3, *size]
        raise ConfigError(f"{name} cannot take pixels {shape} alone: {first[:200]}") from error
    hidden = getattr(output, "last_hidden_state", None)
    if not isinstance(hidden, Tensor):
        raise ConfigError(
            f"{name} returns {type(output).__name__} without a last_hidden_state: expected is an output as "
            "transformers' encoders give it, with last_hidden_state [N, prefix + patches, D]"
        )
    if hidden.dim() != 3 or hidden.shape[0] != len(pixels) or hidden.shape[2] != width:
        raise ConfigError(
            f"{name} returns a last_hidden_state of shape {list(hidden.shape)} for {len(pixels)} view(s) of "
            f"{list(size)} pixels; expected [{len(pixels)}, any prefix + {grid[0] * grid[1]} patches, {width}]"
        )
    return hidden


def _places(grid: tuple[int, int]) -> list[int]:
    """Patches to move: all of a small grid, else corners, neighbours of the first, and some in between."""
    rows, columns = grid
    count = rows * columns
    if count <= _MOST_PATCHES:
        return list(range(count))
    chosen = {0, 1, columns, count - columns, count - 1}
    if count > _MANY_PATCHES:  # each trial takes seconds there
        return sorted(chosen)
    return sorted(chosen | set(range(0, count, count // (_MOST_PATCHES - len(chosen)))))


def _with_patch_moved(pixels: Tensor, place: int, grid: tuple[int, int]) -> Tensor:
    height, width = pixels.shape[2] // grid[0], pixels.shape[3] // grid[1]
    row, column = divmod(place, grid[1])
    changed = pixels.clone()
    changed[:, :, row * height : (row + 1) * height, column * width : (column + 1) * width] += 3.0
    return changed


@contextmanager
def _identity(blocks: nn.ModuleList | None) -> Iterator[None]:
    """Every block returns what it was given. One that is called otherwise than with tokens first stays as it is."""

    def given(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        tokens = inputs[0] if inputs else None
        first = output[0] if isinstance(output, tuple) else output
        if not isinstance(tokens, Tensor) or not isinstance(first, Tensor) or tokens.shape != first.shape:
            return output
        return (tokens, *output[1:]) if isinstance(output, tuple) else tokens

    hooks = [block.register_forward_hook(given) for block in blocks or ()]
    try:
        yield
    finally:
        for hook in hooks:
            with suppress(KeyError):
                hook.remove()
