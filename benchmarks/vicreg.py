"""Forward and backward of the pairwise VICReg loss against its plain form with D x D covariance matrices.

    python benchmarks/vicreg.py --pairs 32 --tokens 128 --width 1024

Both run in turns in one process, on the GPU where there is one. Prints milliseconds, the ratio of the medians, and how
far loss and gradients lie apart (relative to the largest gradient).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from panollava.models.losses import vicreg_pairwise

WEIGHTS = (25.0, 25.0, 1.0)


def plain(first: Tensor, second: Tensor) -> Tensor:
    """VICReg of pairs [N, L, D] as its authors' code has it, with the covariance matrix [N, D, D] of every pair."""
    rows, width = first.shape[1:]
    variance, covariance = first.new_zeros(()), first.new_zeros(())
    for x in (first, second):
        centred = x - x.mean(dim=1, keepdim=True)
        variance = variance + F.relu(1 - torch.sqrt(centred.var(dim=1) + 1e-4)).mean() / 2
        matrix = centred.transpose(1, 2) @ centred / (rows - 1)
        off_diagonal = matrix - torch.diag_embed(matrix.diagonal(dim1=1, dim2=2))
        covariance = covariance + off_diagonal.square().sum(dim=(1, 2)).mean() / width
    parts = (F.mse_loss(first, second), variance, covariance)
    return torch.stack([weight * part for weight, part in zip(WEIGHTS, parts, strict=True)]).sum()


def ours(first: Tensor, second: Tensor) -> Tensor:
    parts = vicreg_pairwise(first, second)
    return torch.stack([weight * part for weight, part in zip(WEIGHTS, parts, strict=True)]).sum()


def step(loss: Callable[[Tensor, Tensor], Tensor], first: Tensor, second: Tensor) -> tuple[float, Tensor, Tensor]:
    """Seconds of one forward and backward, the loss, and the gradient of both sides."""
    if first.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    value = loss(first, second)
    grads = torch.autograd.grad(value, (first, second))
    if first.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start, value.detach(), torch.stack(grads)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    shape = (2, arguments.pairs, arguments.tokens, arguments.width)
    first, second = (side.clone().requires_grad_() for side in torch.randn(shape, device=device))
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    results: dict[str, tuple[Tensor, Tensor]] = {}
    for repeat in range(arguments.repeats + 1):
        for name, loss in (("plain", plain), ("ours", ours)):
            took, *results[name] = step(loss, first, second)  # type: ignore[assignment]
            seconds[name] += [took] if repeat else []  # the first one warms up
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    (plain_loss, plain_grad), (our_loss, our_grad) = results["plain"], results["ours"]
    apart = float((our_loss - plain_loss).abs() / plain_loss)
    grads_apart = float((our_grad - plain_grad).abs().max() / plain_grad.abs().max())
    print(f"{arguments.pairs} pairs, L = {arguments.tokens}, D = {arguments.width}, {device.type}, float32")
    for name, median in medians.items():
        print(f"{name:6} {median * 1e3:8.2f} ms")
    print(f"ratio  {medians['plain'] / medians['ours']:8.2f}")
    print(f"apart  {apart:.1e} (loss), {grads_apart:.1e} (gradients)")


if __name__ == "__main__":
    main()
