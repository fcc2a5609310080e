"""The best that a linear denoiser can do: the yardstick for a network.

With x₀ of mean μ and covariance Σ, and x_t = a x₀ + s ε (a = √ᾱ_t, s = √(1−ᾱ_t)), the
linear estimate of ε with the least mean squared error is the Wiener filter

    ε̂ = s (a² Σ + s² I)⁻¹ (x_t − a μ).

In Σ's eigenvectors v_i, eigenvalues λ_i, its expected error per pixel and channel on images
whose second moments about μ are h_i = E (v_iᵀ(x₀ − μ))² is

    E |ε̂ − ε|² / d = 1/d Σ_i (a² s² h_i + a⁴ λ_i²) / (a² λ_i + s²)²,

which is 1/d Σ_i a² λ_i / (a² λ_i + s²) on the images that Σ was taken from. For Gaussian
images no denoiser is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

Images: TypeAlias = Float[Tensor, "n ..."]
# The covariance has d² entries: 4 GB and hours of eigenvalues at 64×64 RGB
MAX_DIMENSIONS = 4096


class LinearDenoiser:
    """The Wiener filter of a set of images.

    Args:
        images: x₀, float ``(N, ...)`` in [−1, 1]; more than the d values of an image,
            or the covariance is not of full rank

    Raises:
        ValueError: if an image has more than ``MAX_DIMENSIONS`` values
    """

    def __init__(self, images: Images) -> None:
        flat = images.flatten(1)
        if flat.shape[1] > MAX_DIMENSIONS:
            raise ValueError(
                f"the linear baseline needs the covariance of whole images, up to {MAX_DIMENSIONS} values each, "
                f"got {flat.shape[1]}"
            )
        self.mean = flat.mean(0)
        centred = flat - self.mean
        self.variances, self.axes = torch.linalg.eigh(centred.T @ centred / len(centred))
        self.variances = self.variances.clamp(min=0)

    def predict_noise(self, noisy: Images, alpha_cumprod: float | Tensor) -> Images:
        """ε̂ for images ``(N, ...)`` at one timestep of signal power ᾱ_t."""
        signal, spread = alpha_cumprod**0.5, (1 - alpha_cumprod) ** 0.5
        gain = spread / (signal**2 * self.variances + spread**2)
        centred = noisy.flatten(1) - signal * self.mean
        return ((centred @ self.axes) * gain @ self.axes.T).view_as(noisy)

    def expected_error(
        self, images: Images, alphas_cumprod: Float[Tensor, " t"] | Sequence[float]
    ) -> Float[Tensor, " t"]:
        """Mean squared noise error on images ``(N, ...)``, expected over ε: ``(T,)`` for ᾱ ``(T,)``."""
        moments = ((images.flatten(1) - self.mean) @ self.axes).square().mean(0)
        alphas = torch.as_tensor(alphas_cumprod, dtype=moments.dtype)[:, None]
        numerator = alphas * (1 - alphas) * moments + alphas**2 * self.variances**2
        return (numerator / (alphas * self.variances + 1 - alphas) ** 2).mean(1)
