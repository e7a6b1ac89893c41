"""What a view should look like: 8 x 8 samples a pixel, in floating point. For benchmarks and tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from panollava.views.geometry import rays_to_erp, view_rays
from panollava.views.panorama import Pixels
from panollava.views.strategies import View


def reference(panorama: Pixels, view: View, size: tuple[int, int], times: int = 8) -> NDArray[np.float64]:
    """The view [h, w, 3] of a panorama, `times` x `times` bilinear samples a pixel, averaged."""
    height, width = panorama.shape[:2]
    x, y = rays_to_erp(view_rays(view, times * size[0], times * size[1]), height, width)
    left, top = np.floor(x), np.floor(y)
    along, down = (x - left)[..., None], (y - top)[..., None]

    def at(column: NDArray[np.float64], row: NDArray[np.float64]) -> Pixels:
        over = (row < 0) | (row >= height)  # beyond a pole: the other side
        columns = (column + over * (width // 2)).astype(int) % width
        return panorama[np.clip(row, 0, height - 1).astype(int), columns]

    above = at(left, top) * (1 - along) + at(left + 1, top) * along
    below = at(left, top + 1) * (1 - along) + at(left + 1, top + 1) * along
    fine = above * (1 - down) + below * down
    return fine.reshape(size[0], times, size[1], times, 3).mean(axis=(1, 3))


def psnr(first: NDArray[np.generic], second: NDArray[np.generic]) -> float:
    """Peak signal-to-noise ratio in dB of 8-bit pictures."""
    return float(10 * np.log10(255**2 / np.mean((first.astype(np.float64) - second) ** 2)))
