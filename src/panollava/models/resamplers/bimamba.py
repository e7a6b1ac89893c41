"""A state space model over each view's patches, read in both directions (Vision Mamba, Zhu et al. 2024, section 3).

The heart is Mamba-2's selective state space (Dao & Gu 2024, section 5) in its quadratic, attention-like form: for
the few hundred patches of a view one S x S matrix a head, whose entries below the diagonal come from the forward
recurrence and those above from the backward one. So both directions are one product, there is no loop over time, and
it runs wherever torch runs. Traded away: a cost linear in S, which longer sequences would want.
"""

from __future__ import annotations

from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

STEPS = (1e-3, 1e-1)  # a head's first step size lies between, evenly on the log scale, as in Mamba
RATES = (1.0, 16.0)  # and its first decay per unit of step
_LARGEST = 2**26  # entries of the mixing matrices that are held at once; beyond, they are computed again for gradients


class BimambaResampler(nn.Module):
    """Layers of bidirectional state space mixing on all patches, row by row; S' = S, tokens keep their places."""

    def __init__(
        self,
        vision_dim: int,
        latent_dim: int,
        grid: tuple[int, int],
        *,
        layers: int = 1,
        heads: int = 8,
        state_size: int = 64,
        expand: int = 2,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.num_tokens = grid[0] * grid[1]
        self.norm = nn.LayerNorm(vision_dim)
        self.skip = nn.Identity() if vision_dim == latent_dim else nn.Linear(vision_dim, latent_dim, bias=False)
        self.layers = nn.ModuleList(BimambaLayer(latent_dim, grid, heads, state_size, expand) for _ in range(layers))

    def forward(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """tokens [B, V, S, D_vision], positions [V, S, D_vision] or None -> latent tokens [B, V, S, D_latent]."""
        tokens = self.norm(tokens)  # [B, V, S, D_vision]
        if positions is not None:
            tokens = tokens + positions
        latents = self.skip(tokens).flatten(0, 1)  # [B·V, S, D_latent]
        for layer in self.layers:
            latents = latents + layer(latents)
        return latents.unflatten(0, tokens.shape[:2])  # [B, V, S, D_latent]


class BimambaLayer(nn.Module):
    """Values, locally blended, mixed along the scan in both directions, gated and normalised: [N, S, D] -> same.

    The local blend is a 3 x 3 depthwise convolution on the view's grid: it serves both directions, and brings
    the rows above and below, which are far away along the scan.
    """

    def __init__(self, width: int, grid: tuple[int, int], heads: int, state_size: int, expand: int) -> None:
        super().__init__()
        inner = expand * width
        self.grid, self.heads = grid, heads
        self.norm = nn.LayerNorm(width)
        self.to_values = nn.Linear(width, inner, bias=False)
        self.to_gate = nn.Linear(width, inner, bias=False)
        self.to_write = nn.Linear(width, 2 * state_size, bias=False)  # B of both directions
        self.to_read = nn.Linear(width, 2 * state_size, bias=False)  # C
        self.to_steps = nn.Linear(width, 2 * heads)  # Δ
        self.local = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.log_rates = nn.Parameter(torch.empty(2 * heads).uniform_(*RATES).log())  # log(-A)
        self.bypass = nn.Parameter(torch.ones(heads))  # D
        self.norm_out = nn.RMSNorm(inner)
        self.to_out = nn.Linear(inner, width, bias=False)
        first = torch.empty(2 * heads).uniform_(log(STEPS[0]), log(STEPS[1])).exp()
        with torch.no_grad():
            self.to_steps.bias.copy_(first.expm1().log())  # the inverse of softplus

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [N, S, D] -> [N, S, D], S the patches of the view's grid, row by row."""
        tokens = self.norm(tokens)
        values = self.to_values(tokens).transpose(1, 2).unflatten(2, self.grid)  # [N, D_inner, rows, columns]
        values = F.silu(self.local(values)).flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3)  # [N, H, S, P]
        write, read = (
            part(tokens).unflatten(2, (2, -1)).transpose(1, 2) for part in (self.to_write, self.to_read)
        )  # [N, 2, S, K]
        steps = F.softplus(self.to_steps(tokens).float()).transpose(1, 2).unflatten(1, (2, -1))  # [N, 2, H, S]
        rates = -self.log_rates.exp().unflatten(0, (2, -1))  # [2, H]
        mixed = mix_in_slices(values, steps, write, read, rates) + self.bypass[:, None, None] * values
        mixed = mixed.transpose(1, 2).flatten(2)  # [N, S, D_inner]
        out: Tensor = self.to_out(self.norm_out(mixed * F.silu(self.to_gate(tokens))))
        return out


def bidirectional_ssd(values: Tensor, steps: Tensor, write: Tensor, read: Tensor, rates: Tensor) -> Tensor:
    """The sum of two selective recurrences over values [N, H, S, P], one from the first token on, one from the last:

        state_t = exp(step_t · rate) state_{t∓1} + step_t · write_t ⊗ value_t,     out_t = read_t · state_t

    with steps [N, 2, H, S] > 0, write and read [N, 2, S, K], rates [2, H] < 0; index 0 is the forward direction.
    Returns [N, H, S, P]. Weights are computed in float32 whatever autocast says.
    """
    with torch.autocast(values.device.type, enabled=False):
        steps, write, read = steps.float(), write.float(), read.float()
        decays = steps * rates.float()[:, :, None]  # [N, 2, H, S], logarithms
        total = decays.cumsum(dim=3)
        upto, before = total[:, 0], total[:, 1] - decays[:, 1]  # with and without the token itself
        forward = torch.ones(steps.shape[3:] * 2, dtype=torch.bool, device=steps.device).tril()  # t reads s <= t
        fade = torch.where(
            forward, upto[..., :, None] - upto[..., None, :], before[..., None, :] - before[..., :, None]
        )  # [N, H, S, S], at most 0
        amount = torch.where(forward, steps[:, 0, :, None, :], steps[:, 1, :, None, :])
        match = read @ write.transpose(2, 3)  # [N, 2, S, S]
        matrix = torch.where(forward, match[:, 0], match[:, 1])[:, None] * fade.exp() * amount  # [N, H, S, S]
        itself = match[:, 1].diagonal(dim1=1, dim2=2)[:, None] * steps[:, 1]  # [N, H, S]: the backward diagonal
        matrix = matrix + torch.diag_embed(itself)
        return matrix.to(values.dtype) @ values


def mix_in_slices(values: Tensor, steps: Tensor, write: Tensor, read: Tensor, rates: Tensor) -> Tensor:
    """`bidirectional_ssd` on few enough sequences at a time that their matrices fit."""
    count, heads, length, _ = values.shape
    most = max(1, _LARGEST // (heads * length**2))
    if count <= most:
        return bidirectional_ssd(values, steps, write, read, rates)
    slices = zip(*(x.split(most) for x in (values, steps, write, read)), strict=True)
    return torch.cat([checkpoint(bidirectional_ssd, *part, rates, use_reentrant=False) for part in slices])
