"""The interface that the method sees of a diffusion model.

A network may predict the noise ε, the clean image x₀ or the velocity v; with
x_t = √ᾱ_t x₀ + √(1−ᾱ_t) ε all three are the same statement:

    ε̂ = (x_t − √ᾱ_t x̂₀) / √(1−ᾱ_t)        (prediction_type "sample")
    ε̂ = √ᾱ_t v̂ + √(1−ᾱ_t) x_t              (prediction_type "v_prediction")
"""

from contextlib import nullcontext

import torch

from ..errors import ModelError

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")


class NoisePredictor:
    """A network with its schedule.

    Args:
        network: a callable ``(noisy, timesteps) -> prediction`` on ``(N, C, H, W)`` and
            ``(N,)``; a prediction with 2 C channels carries learned variances, which are
            dropped
        alphas_cumprod: ᾱ for every training timestep, ``(num_train_timesteps,)``
        prediction_type: one of ``PREDICTION_TYPES``
        channels: image channels C, 3 (RGB) or 1 (grey)
        resolution: the side of the images that the network was trained on, in pixels
        resolution_multiple: the network accepts sides that are multiples of this
        device: where the network lies
        dtype: autocast type of the network's forward pass; ``torch.float32`` for none
        name: what the user called the model
        fingerprint: a hash of weights and configuration
    """

    def __init__(
        self,
        network,
        alphas_cumprod,
        *,
        prediction_type="epsilon",
        channels=3,
        resolution=32,
        resolution_multiple=1,
        device="cpu",
        dtype=torch.float32,
        name="custom",
        fingerprint="",
    ):
        if prediction_type not in PREDICTION_TYPES:
            raise ModelError(
                f"prediction_type must be one of {', '.join(PREDICTION_TYPES)} for {name}, got {prediction_type!r}"
            )
        self.network = network
        self.device = torch.device(device)
        self.dtype = dtype
        self.alphas_cumprod = torch.as_tensor(alphas_cumprod, dtype=torch.float32, device=self.device)
        self.prediction_type = prediction_type
        self.channels = channels
        self.resolution = resolution
        self.resolution_multiple = resolution_multiple
        self.name = name
        self.fingerprint = fingerprint

    @property
    def num_train_timesteps(self):
        return len(self.alphas_cumprod)

    @torch.inference_mode()
    def predict_noise(self, noisy, timesteps):
        """Predicts the noise in noisy images.

        Args:
            noisy: x_t, float32 ``(N, C, H, W)``
            timesteps: t, int64 ``(N,)``

        Returns:
            ε̂, float32 ``(N, C, H, W)``
        """
        exact = self.dtype == torch.float32  # without autocast, which not every device knows
        with nullcontext() if exact else torch.autocast(self.device.type, dtype=self.dtype):
            prediction = self.network(noisy, timesteps)
        prediction = prediction[:, : self.channels].float()

        if self.prediction_type == "epsilon":
            return prediction
        signal = self.alphas_cumprod[timesteps].sqrt().view(-1, 1, 1, 1)
        spread = (1 - self.alphas_cumprod[timesteps]).sqrt().view(-1, 1, 1, 1)
        if self.prediction_type == "sample":
            return (noisy - signal * prediction) / spread
        return signal * prediction + spread * noisy
