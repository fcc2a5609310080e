"""The interface that the method sees of a diffusion model: clean image and timesteps in, predicted noise out.

A model is a network, the schedule of noise levels that it was trained with, and the space in
which it diffuses; :class:`NoisePredictor` puts the three together. See
:mod:`diffpath.models.schedule` for the symbols.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, Num
from torch import Tensor

from .schedule import Levels, Schedule
from .spaces import Images, PixelSpace, Samples, Space
from .tiles import Tiles


@dataclass(frozen=True)
class Prediction:
    """What a model makes of noised images, each float32 ``(N, c, h, w)`` in the model's space.

    Attributes:
        noise: ε̂
        clean: x̂₀, the reconstruction; :meth:`NoisePredictor.decode` makes an image of it
    """

    noise: Samples
    clean: Samples


class NoisePredictor:
    """A diffusion model.

    Args:
        network: a callable ``(inputs, conditioning) -> output`` on ``(N, c, h, w)`` and
            ``(N,)``; channels of the output beyond c carry learned variances and are
            dropped
        schedule: a :class:`diffpath.models.Schedule`; a tensor is ᾱ per timestep of a
            network that predicts ε
        space: a ``PixelSpace`` or ``LatentSpace``
        channels: c, what the network denoises: image channels or latent channels
        image_channels: 3 (RGB) or 1 (grey); None where it is ``channels``
        resolution: the side of the images that the model was trained on, in pixels
        resolution_multiple: the model accepts sides that are multiples of this
        width: channels at the network's full resolution: how much memory an evaluation takes
        device: where the network lies
        dtype: autocast type of the network's forward pass; ``torch.float32`` for none
        name: what the user called the model
        revision: the hub commit that it was loaded from, or None
        fingerprint: a hash of weights and configuration
        concurrent: whether several threads may ask the network at the same time
    """

    def __init__(
        self,
        network: Callable[[Tensor, Tensor], Tensor],
        schedule: Schedule | Levels,
        *,
        space: Space | None = None,
        channels: int = 3,
        image_channels: int | None = None,
        resolution: int = 32,
        resolution_multiple: int = 1,
        width: int = 32,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        name: str = "custom",
        revision: str | None = None,
        fingerprint: str = "",
        concurrent: bool = False,
    ) -> None:
        self.network = network
        self.device = torch.device(device)
        self.dtype = dtype
        if not isinstance(schedule, Schedule):
            schedule = Schedule.variance_preserving(schedule)
        self.schedule = schedule.to(self.device)
        self.space = PixelSpace() if space is None else space
        self.channels = channels
        self.image_channels = channels if image_channels is None else image_channels
        self.resolution = resolution
        self.resolution_multiple = resolution_multiple
        self.width = width
        self.name = name
        self.revision = revision
        self.fingerprint = fingerprint
        self.concurrent = concurrent

    @property
    def num_train_timesteps(self) -> int:
        return len(self.schedule)

    @property
    def alphas_cumprod(self) -> Float[Tensor, " t"] | None:
        """ᾱ ``(num_train_timesteps,)`` of a variance-preserving model, else None."""
        return self.schedule.alphas_cumprod

    def encode(self, images: Images, max_evaluations: int | None = None) -> Samples:
        """Images ``(N, C, H, W)`` in [−1, 1] to clean samples x₀ ``(N, c, h, w)`` of the model's space."""
        return self._by_parts(self.space.encode, images, max_evaluations)

    def decode(self, clean: Samples, max_evaluations: int | None = None) -> Images:
        """Samples of the model's space to images ``(N, C, H, W)``, clipped to [−1, 1]."""
        return self._by_parts(self.space.decode, clean, max_evaluations).clamp(-1, 1)

    def add_noise(self, clean: Samples, noise: Samples, timesteps: Int64[Tensor, " n"]) -> Samples:
        """x_t = a_t x₀ + σ_t ε.

        Args:
            clean: x₀, float32 ``(N, c, h, w)``
            noise: ε, likewise
            timesteps: t, int64 ``(N,)``, rows of the schedule
        """
        return self._at(self.schedule.signal, timesteps) * clean + self._at(self.schedule.sigma, timesteps) * noise

    @torch.inference_mode()
    def predict(
        self,
        clean: Samples,
        noise: Samples,
        timesteps: Int64[Tensor, " n"],
        *,
        max_evaluations: int | None = None,
        tiles: Tiles | None = None,
    ) -> Prediction:
        """Noises clean samples and says what the noise was and what the clean sample.

        Args:
            clean: x₀, float32 ``(N, c, h, w)``, from :meth:`encode`
            noise: ε, likewise
            timesteps: t, int64 ``(N,)``, rows of the schedule
            max_evaluations: exactly this many samples, or tiles, enter each forward pass, the last one filled up:
                kernels are chosen by size, and round otherwise. None for one pass of all
            tiles: a :class:`diffpath.models.tiles.Tiles` of side h, or None for whole images

        Returns:
            a :class:`Prediction`
        """
        noisy = self.add_noise(clean, noise, timesteps)
        predicted = self.predict_noise(noisy, timesteps, max_evaluations=max_evaluations, tiles=tiles)
        sigma, signal = self._at(self.schedule.sigma, timesteps), self._at(self.schedule.signal, timesteps)
        return Prediction(predicted, (noisy - sigma * predicted) / signal)

    @torch.inference_mode()
    def predict_noise(
        self,
        noisy: Samples,
        timesteps: Int64[Tensor, " n"],
        *,
        max_evaluations: int | None = None,
        tiles: Tiles | None = None,
    ) -> Samples:
        """The part of :meth:`predict` that asks the network: x_t ``(N, c, h, w)`` to ε̂, likewise."""
        inputs = self._at(self.schedule.input_scale, timesteps) * noisy
        conditioning = self.schedule.conditioning[timesteps]
        most = _at_most(max_evaluations, len(inputs) * (1 if tiles is None else len(tiles)))
        if tiles is None:
            output = self._evaluate(inputs, conditioning, most)
        else:
            at_once = max(1, most // len(tiles))  # not all images' tiles lie in memory together
            output = torch.cat(
                [
                    tiles.blend(self._evaluate(tiles.cut(part), times.repeat_interleave(len(tiles)), most))
                    for part, times in zip(inputs.split(at_once), conditioning.split(at_once))
                ]
            )
        from_noisy = self._at(self.schedule.noise_from_noisy, timesteps)
        return from_noisy * noisy + self._at(self.schedule.noise_from_output, timesteps) * output

    def _evaluate(self, inputs: Samples, conditioning: Num[Tensor, " n"], most: int) -> Samples:
        """The network's output without learned variances, in float32."""
        exact = self.dtype == torch.float32  # without autocast, which not every device knows
        outputs = []
        for part, times in zip(inputs.split(most), conditioning.split(most)):
            part, times = _filled(part, most), _filled(times, most)
            with nullcontext() if exact else torch.autocast(self.device.type, dtype=self.dtype):
                outputs.append(self.network(part, times)[:, : self.channels].float())
        return torch.cat(outputs)[: len(inputs)]

    def _by_parts(
        self, function: Callable[[Tensor], Tensor], samples: Float[Tensor, "n _ _ _"], max_evaluations: int | None
    ) -> Float[Tensor, "n _ _ _"]:
        if self.space.factor == 1:
            return function(samples)
        # An autoencoder works at full resolution, a network at 1 / factor of it
        most = max(1, _at_most(max_evaluations, len(samples)) // self.space.factor**2)
        return torch.cat([function(_filled(part, most)) for part in samples.split(most)])[: len(samples)]

    def _at(self, row: Num[Tensor, " t"], timesteps: Int64[Tensor, " n"]) -> Num[Tensor, "n 1 1 1"]:
        return row[timesteps].view(-1, 1, 1, 1)


def _filled(part: Num[Tensor, "n ..."], count: int) -> Num[Tensor, "{count} ..."]:
    """A part with copies of its first item behind it, up to a number of items, in one layout of memory."""
    if len(part) < count:
        part = torch.cat([part, part[:1].expand(count - len(part), *part.shape[1:])])
    return part.contiguous(memory_format=torch.channels_last) if part.ndim == 4 else part


def _at_most(max_evaluations: int | None, everything: int) -> int:
    """How many samples to evaluate together where there is a limit or None."""
    if max_evaluations is None:
        return everything
    if max_evaluations < 1:
        raise ValueError(f"max_evaluations must be at least 1, got {max_evaluations}")
    return max_evaluations
