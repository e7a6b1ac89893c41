"""The quadratic form of bimamba against its recurrence, step by step, each direction alone and both together."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from panollava.models.resamplers import bimamba
from panollava.models.resamplers.bimamba import BimambaLayer, bidirectional_ssd, mix_in_slices

N, HEADS, LENGTH, WIDTH, STATE = 2, 3, 7, 4, 5


def inputs(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "values": normal(N, HEADS, LENGTH, WIDTH),
        "steps": normal(N, 2, HEADS, LENGTH).exp() / 2,
        "write": normal(N, 2, LENGTH, STATE),
        "read": normal(N, 2, LENGTH, STATE),
        "rates": -normal(2, HEADS).exp(),
    }


def recurrence(values: Tensor, steps: Tensor, write: Tensor, read: Tensor, rates: Tensor, direction: int) -> Tensor:
    """One direction, token after token: what a state space model is."""
    state = values.new_zeros(N, HEADS, WIDTH, STATE)
    out: list[Tensor | None] = [None] * LENGTH
    for t in range(LENGTH) if direction == 0 else reversed(range(LENGTH)):
        step = steps[:, direction, :, t]  # [N, H]
        written = values[:, :, t, :, None] * write[:, direction, None, t, None, :]  # [N, H, P, K]
        state = torch.exp(step * rates[direction])[..., None, None] * state + step[..., None, None] * written
        out[t] = (state * read[:, direction, None, t, None, :]).sum(dim=-1)
    return torch.stack(out, dim=2)  # type: ignore[arg-type]


def silenced(given: dict[str, Tensor], direction: int) -> dict[str, Tensor]:
    """The same without what one direction reads: only the other is left."""
    keep = torch.tensor([1.0, 0.0] if direction == 1 else [0.0, 1.0])[:, None, None]
    return {**given, "read": given["read"] * keep}


@pytest.mark.parametrize("directions", [(0,), (1,), (0, 1)], ids=["forward", "backward", "both"])
def test_values_and_gradients_are_those_of_the_recurrence(directions: tuple[int, ...]) -> None:
    given = inputs()
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in given.items()}
    used = leaves if len(directions) == 2 else silenced(leaves, 1 - directions[0])
    ours = bidirectional_ssd(**used)
    wanted = sum(recurrence(**used, direction=d) for d in directions)
    assert isinstance(wanted, Tensor) and torch.allclose(ours, wanted, atol=1e-5)
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    grads = torch.autograd.grad((ours * weights).sum(), list(leaves.values()), retain_graph=True)
    wanted_grads = torch.autograd.grad((wanted * weights).sum(), list(leaves.values()))
    for name, grad, right in zip(leaves, grads, wanted_grads, strict=True):
        assert right.abs().max() > 0.01 and torch.allclose(grad, right, rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("direction", [0, 1])
def test_a_direction_sees_nothing_from_its_other_side(direction: int) -> None:
    given = silenced(inputs(), 1 - direction)
    before = bidirectional_ssd(**given)
    changed = {**given, "values": given["values"].clone()}
    changed["values"][:, :, 3] += 1.0
    moved = (bidirectional_ssd(**changed) - before).abs().amax(dim=(0, 1, 3)) > 0
    assert moved.tolist() == [t >= 3 if direction == 0 else t <= 3 for t in range(LENGTH)]


def test_reversed_tokens_with_swapped_directions_give_the_reversed_output() -> None:
    given = inputs()
    turned = {
        "values": given["values"].flip(2),
        "steps": given["steps"].flip(1, 3),
        "write": given["write"].flip(1, 2),
        "read": given["read"].flip(1, 2),
        "rates": given["rates"].flip(0),
    }
    assert torch.allclose(bidirectional_ssd(**turned), bidirectional_ssd(**given).flip(2), atol=1e-5)


def test_long_sequences_and_large_steps_stay_finite() -> None:
    """Decays over the whole sequence are far below what exp can hold; they fade to zero instead of overflowing."""
    given = {
        "values": torch.randn(1, 1, 800, 2), "steps": torch.full((1, 2, 1, 800), 5.0),
        "write": torch.randn(1, 2, 800, 3), "read": torch.randn(1, 2, 800, 3), "rates": torch.full((2, 1), -16.0),
    }  # fmt: skip
    leaves = {name: tensor.requires_grad_() for name, tensor in given.items()}
    out = bidirectional_ssd(**leaves)
    grads = torch.autograd.grad(out.square().sum(), list(leaves.values()))
    assert out.isfinite().all() and all(grad.isfinite().all() for grad in grads)


def test_slices_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    leaves = {name: tensor.requires_grad_() for name, tensor in inputs().items()}
    whole = mix_in_slices(**leaves)
    grads = torch.autograd.grad(whole.square().sum(), list(leaves.values()))
    monkeypatch.setattr(bimamba, "_LARGEST", 1)  # one sequence at a time
    sliced = mix_in_slices(**leaves)
    assert torch.allclose(sliced, whole, atol=1e-6)
    for grad, right in zip(torch.autograd.grad(sliced.square().sum(), list(leaves.values())), grads, strict=True):
        assert torch.allclose(grad, right, atol=1e-5)


def test_under_autocast_the_weights_stay_in_float32() -> None:
    torch.manual_seed(0)
    layer, tokens = BimambaLayer(16, (3, 4), heads=2, state_size=4, expand=2), torch.randn(2, 12, 16)
    exact = layer(tokens).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = layer(tokens).detach()
    assert rough.isfinite().all() and float((rough - exact).abs().max()) < 0.1 * float(exact.abs().max())
    assert all(parameter.dtype == torch.float32 for parameter in layer.parameters())


def test_first_step_sizes_are_those_of_mamba() -> None:
    layer = BimambaLayer(32, (4, 4), heads=8, state_size=4, expand=2)
    steps = torch.nn.functional.softplus(layer.to_steps.bias.detach())
    assert float(steps.min()) >= 0.99e-3 and float(steps.max()) <= 1.01e-1 and len(set(steps.tolist())) == 16
