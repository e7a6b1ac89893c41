"""What a native model's encoder says of a panorama's views, as one array, and back.

Families hand out their features in many layouts: one tensor of all views, a list with one of each, with copies for
deeper layers beside it (Qwen3-VL). Here they are [P, V, T, D·(1+K)], so that they can be cached, indexed and compared;
`outputs` makes of them what the model's own forward takes (`mm_encoder_outputs`), equal to the last bit. Hidden states
of the tower are left out: nothing reads them any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from panollava.errors import ConfigError

_UNREAD = ("last_hidden_state", "hidden_states", "attentions")
_KEYS = ("pooler_output", "deepstack_features")


@dataclass(frozen=True)
class FeatureLayout:
    """How a family lays out its features: seen once, on the output `example` for one panorama of `views` views."""

    views: int
    kind: type
    fields: dict[str, Any]

    @classmethod
    def of(cls, example: Any, views: int, name: str) -> FeatureLayout:
        """Raises ConfigError for an output that holds no features of each view."""
        fields = {key: value for key, value in example.items() if key not in _UNREAD and value is not None}
        layout = cls(views, type(example), fields)
        parts = layout._parts(fields)
        if not parts or any(len(_flat(part)) % views for part in parts):
            raise ConfigError(f"{name}: its image features, {sorted(fields) or 'none'}, are not equally many a view")
        return layout

    @property
    def shape(self) -> tuple[int, int, int]:
        """(V, T, D·(1+K)) of one panorama's features."""
        views, tokens, width = self.pack(self.fields, 1).shape[1:]
        return int(views), int(tokens), int(width)

    @property
    def width(self) -> int:
        """D, the width of one layer's features."""
        return self.shape[2] // len(self._parts(self.fields))

    def pack(self, output: Any, panoramas: int) -> Tensor:
        """[P, V, T, D·(1+K)] of the encoder's output for `panoramas` panoramas."""
        return torch.cat(
            [_flat(part).unflatten(0, (panoramas, self.views, -1)) for part in self._parts(output)], dim=-1
        )

    def outputs(self, features: Tensor) -> dict[str, Any]:
        """`mm_encoder_outputs` for the model's forward, of features [P, V, T, D·(1+K)]."""
        panoramas, width = len(features), features.shape[-1] // len(self._parts(self.fields))
        pieces = iter(features.split(width, dim=-1))
        fields = dict(self.fields)
        if "pooler_output" in fields:
            fields["pooler_output"] = _like(fields["pooler_output"], next(pieces).flatten(0, 2), panoramas)
        if "deepstack_features" in fields:
            fields["deepstack_features"] = [
                _like(layer, next(pieces).flatten(0, 2), panoramas) for layer in fields["deepstack_features"]
            ]
        try:
            return {"image": self.kind(**fields)}
        except TypeError:  # a class whose hidden state has no default
            return {"image": self.kind(last_hidden_state=None, **fields)}

    @staticmethod
    def _parts(output: Any) -> list[Any]:
        """The values that differ between panoramas, in order."""
        found = [output["pooler_output"]] if output.get("pooler_output") is not None else []
        return [*found, *(output.get("deepstack_features") or [])]


def _flat(value: Any) -> Tensor:
    """Any layout as [N, D], view after view, row after row."""
    if isinstance(value, Tensor):
        return value.reshape(-1, value.shape[-1])
    return torch.cat([_flat(part) for part in value])


def _like(value: Any, flat: Tensor, panoramas: int) -> Any:
    """The inverse of `_flat`, for `panoramas` panoramas where `value` was for one."""
    if isinstance(value, Tensor):
        return flat.reshape(-1, *value.shape[1:]) if value.ndim == 3 else flat
    return list(flat.split(len(flat) // (len(value) * panoramas)))
