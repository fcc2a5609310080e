"""The space in which a model diffuses: pixels on the network's scale, or an autoencoder's latents."""

from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "n channels height width"]
Samples = Float[Tensor, "n c h w"]


@runtime_checkable
class Space(Protocol):
    """What a :class:`diffpath.models.NoisePredictor` needs of the space in which its network denoises.

    Attributes:
        factor: pixels of an image for each of the space's, per side
    """

    factor: int

    def to(self, device: torch.device) -> None:
        """Moves what the space computes with."""

    def encode(self, images: Images) -> Samples:
        """Images in [−1, 1] to clean samples."""

    def decode(self, clean: Samples) -> Images:
        """The inverse; values outside of [−1, 1] are kept."""


class PixelSpace:
    """Pixels; ``low`` is what black is on the network's scale: −1, or 0 for score-based models.

    ``factor``, how many pixels make one latent per side, is 1.
    """

    factor = 1

    def __init__(self, low: float = -1.0) -> None:
        if low not in (-1.0, 0.0):
            raise ValueError(f"low must be -1 or 0, got {low}")
        self.low = low

    def to(self, device: torch.device) -> None:
        """Pixels need nothing of a device."""

    def encode(self, images: Images) -> Samples:
        """Images ``(N, C, H, W)`` in [−1, 1] as the network sees clean images."""
        return images if self.low == -1 else (images + 1) / 2

    def decode(self, clean: Samples) -> Images:
        """The inverse; values outside of the range are kept."""
        return clean if self.low == -1 else clean * 2 - 1


@runtime_checkable
class Distribution(Protocol):
    """What an ``AutoencoderKL`` makes of images."""

    def mode(self) -> Samples:
        """The likeliest latents."""


@runtime_checkable
class Autoencoder(Protocol):
    """What a :class:`LatentSpace` needs of an autoencoder of diffusers."""

    def to(self, device: torch.device) -> Any:
        """Moves it."""

    def encode(self, images: Images, *, return_dict: Literal[False]) -> tuple[Samples | Distribution, ...]:
        """Latents, or their distribution, first."""

    def decode(self, latents: Samples, *, return_dict: Literal[False]) -> tuple[Images, ...]:
        """Images first."""


class LatentSpace:
    """Latents of an ``AutoencoderKL`` or ``VQModel``, always computed in float32.

    An image's latent is the mode of the encoder's distribution, so that features do not
    depend on chance.

    Args:
        autoencoder: the autoencoder
        factor: pixels per latent and side
        scaling: latents are multiplied by this before the network sees them
        shift: and this is subtracted from them before
    """

    def __init__(self, autoencoder: Autoencoder, *, factor: int, scaling: float, shift: float = 0.0) -> None:
        self.autoencoder = autoencoder
        self.factor = factor
        self.scaling, self.shift = scaling, shift

    def to(self, device: torch.device) -> None:
        """Moves the autoencoder."""
        self.autoencoder.to(device)

    @torch.inference_mode()
    def encode(self, images: Images) -> Samples:
        """Images ``(N, C, H, W)`` in [−1, 1] to latents ``(N, c, H / factor, W / factor)``."""
        encoded = self.autoencoder.encode(images, return_dict=False)[0]
        latents = encoded if isinstance(encoded, Tensor) else encoded.mode()
        return (latents - self.shift) * self.scaling

    @torch.inference_mode()
    def decode(self, clean: Samples) -> Images:
        """Latents to images; values outside of [−1, 1] are kept."""
        return self.autoencoder.decode(clean / self.scaling + self.shift, return_dict=False)[0]
