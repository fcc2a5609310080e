"""Structural similarity (Wang et al. 2004) as a map.

    SSIM = (2 μₓ μᵧ + C₁)(2 σₓᵧ + C₂) / ((μₓ² + μᵧ² + C₁)(σₓ² + σᵧ² + C₂))

with local means, variances and covariance over a window. For images in [−1, 1] the data
range is 2, and the usual K₁ = 0.01, K₂ = 0.03 give ``STANDARD_C``. A reconstruction from
a noisy image is noisy itself; with constants that small, 1 − SSIM is then high on every
flat region. ``RECONSTRUCTION_C`` is above that noise, so that 1 − SSIM is high where
structure differs, and ``HEATMAP_C`` points at it best (measured by
``python -m benchmarks.accuracy localisation``).
"""

import functools

import torch
from jaxtyping import Float
from torch import Tensor

DATA_RANGE = 2.0
STANDARD_C = ((0.01 * DATA_RANGE) ** 2, (0.03 * DATA_RANGE) ** 2)
RECONSTRUCTION_C = (0.2, 0.2)
HEATMAP_C = (1.0, 1.0)


def dissimilarity_map(
    images: Float[Tensor, "*#batch c h w"],
    reconstruction: Float[Tensor, "*batch c h w"],
    *,
    window: int = 7,
    sigma: float | None = None,
    c: tuple[float, float] = RECONSTRUCTION_C,
) -> Float[Tensor, "*batch h w"]:
    """1 − SSIM per pixel, as the mean over channels.

    Args:
        images: x₀, float32, broadcastable to ``reconstruction``
        reconstruction: x̂₀, float32 ``(..., C, H, W)``, both in [−1, 1]
        window: side of the window in pixels, odd
        sigma: standard deviation of a Gaussian window in pixels, or None for a uniform one
        c: (C₁, C₂)

    Returns:
        float32 ``(..., H, W)`` in [0, 2]
    """
    return LocalMoments(images, reconstruction, window=window, sigma=sigma).dissimilarity(c)


class LocalMoments:
    """Means, variances and covariance in a window: 1 − SSIM for any constants from one filtering."""

    def __init__(
        self,
        images: Float[Tensor, "*#batch c h w"],
        reconstruction: Float[Tensor, "*batch c h w"],
        *,
        window: int,
        sigma: float | None,
    ) -> None:
        if window < 3 or window % 2 == 0:
            raise ValueError(f"ssim_window must be odd and at least 3, got {window}")
        self.mean_x, self.mean_y = local_mean(images, window, sigma), local_mean(reconstruction, window, sigma)
        self.variances = local_mean(images**2, window, sigma) - self.mean_x**2
        self.variances = self.variances + local_mean(reconstruction**2, window, sigma) - self.mean_y**2
        self.covariance = local_mean(images * reconstruction, window, sigma) - self.mean_x * self.mean_y

    def dissimilarity(self, c: tuple[float, float]) -> Float[Tensor, "*batch h w"]:
        """1 − SSIM with constants (C₁, C₂), as the mean over channels, ``(..., H, W)`` in [0, 2]."""
        c1, c2 = c
        similarity = (2 * self.mean_x * self.mean_y + c1) * (2 * self.covariance + c2)
        similarity = similarity / ((self.mean_x**2 + self.mean_y**2 + c1) * (self.variances + c2))
        return (1 - similarity).mean(dim=-3)


def local_mean(
    values: Float[Tensor, "*batch h w"], window: int, sigma: float | None = None
) -> Float[Tensor, "*batch h w"]:
    """Means over a window, the border mirrored with its edge pixels.

    Along each axis this is one product with a matrix: many times faster on a processor than
    a convolution of single channels.

    Args:
        values: float32 ``(..., H, W)``
        window: side of the window in pixels, odd
        sigma: standard deviation of a Gaussian window in pixels, or None for a uniform one
    """
    down, across = (_averaging(size, window, sigma).to(values.device) for size in values.shape[-2:])
    return down @ (values @ across.T)


@functools.lru_cache(maxsize=32)
def _averaging(size: int, window: int, sigma: float | None) -> Float[Tensor, "size size"]:
    """The matrix ``(size, size)`` that takes the values along an axis to their means."""
    offsets = torch.arange(window, dtype=torch.float64) - window // 2
    weights = torch.ones_like(offsets) if sigma is None else torch.exp(-0.5 * (offsets / sigma) ** 2)
    places = (torch.arange(size).unsqueeze(1) + torch.arange(window) - window // 2) % (2 * size)
    places = torch.where(places < size, places, 2 * size - 1 - places)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    matrix.scatter_add_(1, places, (weights / weights.sum()).expand(size, window))
    return matrix.float()
