"""The tower's own tokens of each view, before anything joins them to the language model, for the overlap loss.

In: the output of a native model's tower, caught while the model encodes. Out: [P, V, S, D] row by row. Towers hand
their tokens out with class tokens before them, in one row for all pictures, or in the groups that a merger joins (there
the mean of a group represents it); Qwen2.5-VL's in the order of its windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from panollava.errors import ConfigError
from panollava.models.native_processing import NativeProcessing

Grid = tuple[int, int]


class TowerTap:
    """Keeps what the tower returned last while it is `listening`."""

    def __init__(self, tower: Any, processing: NativeProcessing, views: int, size: tuple[int, int]) -> None:
        self._tower, self._processing, self._views, self._size = tower, processing, views, size
        self._caught: Any = None
        self._thw: Tensor | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        def keep(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            self._caught = output
            grids = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.ndim == 2]
            self._thw = next((value for value in grids if value.shape[1] == 3 and not value.is_floating_point()), None)

        handle = self._tower.register_forward_hook(keep, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def grid(self, merged: Grid | None) -> Grid:
        """Rows and columns of what `tokens` returns; `merged` those of the prompt's tokens of a view."""
        if self._processing.family.merges and merged is not None:
            return merged
        count = self._per_view(1)[0]
        return _grid_of(count, self._size)

    def tokens(self, panoramas: int, merged: Grid | None) -> Tensor:
        """[P, V, S, D] of the `panoramas` that the tower saw last."""
        count, hidden = self._per_view(panoramas)
        hidden = hidden.reshape(panoramas, self._views, count, hidden.shape[-1])
        if self._processing.family.merges and merged is not None:
            groups = merged[0] * merged[1]
            hidden = hidden.unflatten(2, (groups, -1)).mean(dim=3)  # [P, V, T, D]
            order = self._window_order()
            if order is not None:
                flat = hidden.reshape(-1, hidden.shape[-1])
                hidden = flat[order.to(flat.device)].view_as(hidden)
            return hidden
        rows, columns = _grid_of(count, self._size)
        return hidden[:, :, count - rows * columns :]

    def _per_view(self, panoramas: int) -> tuple[int, Tensor]:
        """Tokens a view, those of classes too, and the tower's hidden state."""
        hidden = self._hidden()
        tokens = hidden.numel() // hidden.shape[-1]
        count, rest = divmod(tokens, panoramas * self._views)
        if rest:
            raise ConfigError("overlap_features: tower cannot be used: the tower's tokens are not equally many a view")
        return count, hidden

    def _hidden(self) -> Tensor:
        caught = self._caught
        layer = getattr(self._processing.config, "vision_feature_layer", None)
        states = getattr(caught, "hidden_states", None)
        if isinstance(layer, int) and layer != -1 and states is not None:
            return states[layer]
        hidden = getattr(caught, "last_hidden_state", None)
        if hidden is None:
            hidden = caught[0] if isinstance(caught, (tuple, list)) else caught
        if not isinstance(hidden, Tensor):
            raise ConfigError(
                f"overlap_features: tower cannot be used: {type(self._tower).__name__} hands out no tokens"
            )
        return hidden

    def _window_order(self) -> Tensor | None:
        """The place of each group, row by row, in the order of the tower's windows; None without windows."""
        if not hasattr(self._tower, "get_window_index") or self._thw is None:
            return None
        index, _ = self._tower.get_window_index(self._thw)
        return torch.as_tensor(index).argsort()


def _grid_of(count: int, size: tuple[int, int]) -> Grid:
    """The largest grid of a view's shape that `count` tokens fill, but for class and register tokens before it."""
    for tokens in range(count, max(0, count - 9), -1):
        columns = round((tokens * size[1] / size[0]) ** 0.5)
        if columns and tokens % columns == 0 and (tokens // columns) * size[1] == columns * size[0]:
            return tokens // columns, columns
    raise ConfigError(f"overlap_features: tower cannot be used: {count} tokens of a view form no grid of its shape")
