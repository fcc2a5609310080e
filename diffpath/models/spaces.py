"""The space in which a model diffuses: pixels on the network's scale, or an autoencoder's latents."""

import torch


class PixelSpace:
    """Pixels; ``low`` is what black is on the network's scale: −1, or 0 for score-based models.

    ``factor``, how many pixels make one latent per side, is 1.
    """

    factor = 1

    def __init__(self, low=-1.0):
        if low not in (-1.0, 0.0):
            raise ValueError(f"low must be -1 or 0, got {low}")
        self.low = low

    def to(self, device):
        """Pixels need nothing of a device."""

    def encode(self, images):
        """Images ``(N, C, H, W)`` in [−1, 1] as the network sees clean images."""
        return images if self.low == -1 else (images + 1) / 2

    def decode(self, clean):
        """The inverse; values outside of the range are kept."""
        return clean if self.low == -1 else clean * 2 - 1


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

    def __init__(self, autoencoder, *, factor, scaling, shift=0.0):
        self.autoencoder = autoencoder
        self.factor = factor
        self.scaling, self.shift = scaling, shift

    def to(self, device):
        """Moves the autoencoder."""
        self.autoencoder.to(device)

    @torch.inference_mode()
    def encode(self, images):
        """Images ``(N, C, H, W)`` in [−1, 1] to latents ``(N, c, H / factor, W / factor)``."""
        encoded = self.autoencoder.encode(images)
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        return (latents - self.shift) * self.scaling

    @torch.inference_mode()
    def decode(self, clean):
        """Latents to images; values outside of [−1, 1] are kept."""
        return self.autoencoder.decode(clean / self.scaling + self.shift, return_dict=False)[0]
