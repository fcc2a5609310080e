"""Training steps, checkpoints and exact resume.

    x_t = √ᾱ_t x₀ + √(1−ᾱ_t) ε,   t uniform,   loss = mean (network(x_t, t) − target)²

where the target is ε, x₀ or v as ``prediction_type`` says; the average of the weights is diffusers'
``EMAModel``, whose decay is short at first, so that the initial weights are soon forgotten. All
that is random in step k (order of the crops, flips, t, ε, dropout) is drawn from the seed and k
alone, so that a checkpoint needs no generator's state and a resumed run repeats the uninterrupted one.
"""

from __future__ import annotations

import copy
import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from jaxtyping import Float, Int, Int64
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from ..models.folder import AUTOENCODERS, find_folder
from ..models.loading import load_parts, resolve_device, resolve_dtype
from ..models.networks import Network
from ..models.predictor import NoisePredictor
from ..models.schedule import Schedule
from .config import NETWORK, SCHEDULE, Config, Training
from .crops import Crops

_CHECKPOINT = "checkpoint.pt"
_MAY_CHANGE = ("steps", "cpu_minutes", "checkpoint_every", "samples", "compile")


@dataclass(frozen=True)
class Start:
    """What a training begins with.

    Attributes:
        network: the network, of which a training changes the module
        scheduler: the noise levels, as diffusers writes them
        schedule: the same, as the method sees them: with the timestep scale of a converted model
        own_config: what diffpath must know of the model beside diffusers' configurations
    """

    network: Network
    scheduler: DDPMScheduler
    schedule: Schedule
    own_config: dict[str, Any] = field(default_factory=dict)


class Trainer:
    """A network in training, its average, its optimiser and its crops.

    Args:
        config: a :class:`diffpath.training.config.Config`
        crops: the :class:`diffpath.training.crops.Crops`
        device: a torch device; by default the best one

    Attributes:
        step: updates done
        losses: the training loss of each update
        cpu_seconds, seconds: processor time and time spent in them, over all sessions

    Raises:
        ValueError: if the network, the schedule or the model to start from is not valid
    """

    def __init__(self, config: Config, crops: Crops, device: str | torch.device | None = None) -> None:
        self.config, self.options, self.crops = config, config.training, crops
        self.device = resolve_device(device)
        self.dtype = self._choose_dtype()
        torch.manual_seed(config.seed)
        start = build_network(config)
        self.scheduler, self.own_config = start.scheduler, start.own_config
        module = start.network.module
        if self.options.channels_last:
            module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its stubs
        self.network = module.to(self.device).train()
        self._averaged = copy.deepcopy(self.network).eval().requires_grad_(False)
        self._ema = EMAModel(self.network.parameters(), decay=self.options.ema, foreach=True)
        extras = {name: value.to(self.device) for name, value in start.network.extras.items()}
        self._start = replace(start.network, extras=extras)
        self._schedule = start.schedule.to(self.device)
        first, second = self.options.betas
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=self.options.learning_rate,
            betas=(first, second),
            weight_decay=self.options.weight_decay,
        )
        self._learning_rate = self._schedule_learning_rate(0)
        compiled: Any = torch.compile(self.network) if self.options.compile else self.network
        self._forward = replace(self._start, module=compiled)
        self.step, self.cpu_seconds, self.seconds = 0, 0.0, 0.0
        self.losses: list[float] = []

    @property
    def average(self) -> torch.nn.Module:
        """The network with the average of its weights."""
        self._ema.copy_to(self._averaged.parameters())
        return self._averaged

    @property
    def predictor(self) -> NoisePredictor:
        """The averaged network as the method sees it."""
        return NoisePredictor(
            replace(self._start, module=self.average),
            self._schedule,
            resolution=self.config.data.resolution,
            device=self.device,
            dtype=self.dtype,
            name="in training",
        )

    @property
    def out_of_time(self) -> bool:
        """Whether ``cpu_minutes`` is used up."""
        return 0 < self.options.cpu_minutes * 60 <= self.cpu_seconds

    def train_step(self) -> float:
        """One update; returns its loss."""
        started, cpu_started = time.perf_counter(), time.process_time()
        images, noise, timesteps = self._batch()
        noisy = self.scheduler.add_noise(images, noise, timesteps)
        exact = self.dtype == torch.float32  # without autocast, which not every device knows
        with nullcontext() if exact else torch.autocast(self.device.type, dtype=self.dtype):
            prediction = self._forward(noisy, self._schedule.conditioning[timesteps])
        prediction = prediction[:, : images.shape[1]].float()  # the others are learned variances, which stay untrained
        loss = (prediction - self._target(images, noise, timesteps)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.options.gradient_clip)
        self.optimizer.step()
        self._learning_rate.step()
        self._ema.step(self.network.parameters())
        self.step += 1
        self.losses.append(loss.item())
        self.seconds += time.perf_counter() - started
        self.cpu_seconds += time.process_time() - cpu_started
        if not math.isfinite(self.losses[-1]):
            raise ValueError(
                f"the loss is {self.losses[-1]} at step {self.step}; use a smaller training.learning_rate, or float32"
            )
        return self.losses[-1]

    def save_checkpoint(self) -> None:
        """Writes all that a resumed run needs; a crash while writing leaves the previous checkpoint."""
        path = checkpoint_path(self.config)
        path.parent.mkdir(parents=True, exist_ok=True)
        state = dict(
            config=self.config.to_dict(),
            network=self.network.state_dict(),
            average=self.average.state_dict(),
            optimizer=self.optimizer.state_dict(),
            step=self.step,
            losses=self.losses,
            cpu_seconds=self.cpu_seconds,
            seconds=self.seconds,
            crops=self.crops.fingerprint,
        )
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def load_checkpoint(self) -> None:
        """Goes on from the checkpoint in the output folder.

        Raises:
            ValueError: if it can't be read, or was made with another configuration
        """
        path = checkpoint_path(self.config)
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            before = state["config"]
        except Exception as error:  # a damaged archive raises nearly anything
            raise ValueError(f"{path} can't be read ({type(error).__name__}); delete it, or use --restart") from error
        self._refuse_changes(before, state["crops"], path)
        self.network.load_state_dict(state["network"])
        self._averaged.load_state_dict(state["average"])
        averaged = list(self._averaged.parameters())
        self._ema.load_state_dict({"shadow_params": averaged, "optimization_step": state["step"]})
        self.optimizer.load_state_dict(state["optimizer"])
        self._learning_rate = self._schedule_learning_rate(state["step"])
        for name in ("step", "losses", "cpu_seconds", "seconds"):
            setattr(self, name, state[name])

    def _schedule_learning_rate(self, step: int) -> LambdaLR:
        """Sets the rate of a step and of those after it: of the present options, which may have more steps."""
        for group in self.optimizer.param_groups:
            group["initial_lr"] = self.options.learning_rate
        return LambdaLR(self.optimizer, lambda step: learning_rate_factor(step, self.options), last_epoch=step - 1)

    def _refuse_changes(self, before: dict[str, Any], crops: str, path: Path) -> None:
        now = self.config.to_dict()
        old, new = before["training"], now["training"]
        differing = [f"training.{name}" for name in new if name not in _MAY_CHANGE and old.get(name) != new[name]]
        differing += [name for name in ("network", "schedule", "seed") if before[name] != now[name]]
        if crops != self.crops.fingerprint:
            differing.append("data")
        if differing:
            raise ValueError(
                f"{path} was made with another {' and '.join(differing)}; put the old value back, give another output, "
                "or use --restart"
            )

    def _batch(
        self,
    ) -> tuple[Float[Tensor, "n 3 s s"], Float[Tensor, "n 3 s s"], Int64[Tensor, " n"]]:
        """Images in [−1, 1] ``(B, 3, side, side)``, noise, and timesteps ``(B,)`` of this step."""
        size, generator = self.options.batch_size, torch.Generator().manual_seed(self._step_seed())
        images = torch.from_numpy(
            self.crops.train[crop_indices(self.step, size, len(self.crops.train), self.config.seed)]
        )
        images = images.to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        if self.options.flip:
            mirrored = torch.rand(size, generator=generator).to(self.device) < 0.5
            images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
        timesteps = torch.randint(len(self._schedule), (size,), generator=generator).to(self.device)
        noise = torch.randn(images.shape, generator=generator).to(self.device)
        torch.manual_seed(self._step_seed())  # for a network with dropout
        layout = torch.channels_last if self.options.channels_last else torch.contiguous_format
        return images.contiguous(memory_format=layout), noise.contiguous(memory_format=layout), timesteps

    def _step_seed(self) -> int:
        return int(np.random.SeedSequence([self.config.seed, self.step]).generate_state(1, np.uint64)[0]) >> 1

    def _target(
        self, images: Float[Tensor, "n c s s"], noise: Float[Tensor, "n c s s"], timesteps: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n c s s"]:
        kind = self.scheduler.config.prediction_type
        if kind == "epsilon":
            return noise
        return images if kind == "sample" else self.scheduler.get_velocity(images, noise, timesteps)

    def _choose_dtype(self) -> torch.dtype:
        if self.options.dtype != "auto":
            return resolve_dtype(self.options.dtype, self.device)
        fastest = resolve_dtype(None, self.device)
        return fastest if fastest == torch.bfloat16 else torch.float32  # float16 gradients would underflow


def build_network(config: Config) -> Start:
    """The network and the schedule that a configuration asks for."""
    if config.training.start_from:
        return _load_start(config)
    arguments = {**NETWORK, **config.network, "sample_size": config.data.resolution}
    multiple = 2 ** (len(arguments["block_out_channels"]) - 1)
    if config.data.resolution % multiple:
        raise ValueError(
            f"data.resolution must be a multiple of {multiple} for this network, got {config.data.resolution}"
        )
    try:
        network = UNet2DModel(**arguments)
        scheduler = DDPMScheduler(**{**SCHEDULE, **config.schedule})
        with torch.no_grad():  # some mistakes show only in use, such as attention heads wider than the network
            network(torch.zeros(1, 3, config.data.resolution, config.data.resolution), 0)
    except Exception as error:
        reason = f"{type(error).__name__}, {str(error).splitlines()[0]}"
        raise ValueError(f"[network] or [schedule] is not what diffusers accepts: {reason}") from error
    schedule = Schedule.variance_preserving(scheduler.alphas_cumprod, scheduler.config.prediction_type)
    side = config.data.resolution
    return Start(Network(network, {}, 3, side, multiple, arguments["block_out_channels"][0]), scheduler, schedule)


def _load_start(config: Config) -> Start:
    folder = find_folder(config.training.start_from)
    parts = load_parts(folder)
    network = parts.network
    if network.channels != 3 or network.sample_size != config.data.resolution:
        raise ValueError(
            f"training.start_from must be an RGB model of data.resolution {config.data.resolution}, got "
            f"{network.channels} channels of {network.sample_size} pixels"
        )
    of_pixels = isinstance(network.module, UNet2DModel) and not folder.part(AUTOENCODERS)
    if not of_pixels or parts.schedule.alphas_cumprod is None:
        raise ValueError(
            f"training.start_from must be a UNet2DModel of pixels with a variance-preserving schedule, got "
            f"{folder.name!r}, which is another kind of model; start from another, or from none"
        )
    module: Any = network.module.requires_grad_(True)  # loading froze all of it
    if module.config.time_embedding_type == "fourier":
        module.time_proj.requires_grad_(False)  # random frequencies, which diffusers never trains
    scheduler = DDPMScheduler.from_config(folder.read_json(folder.scheduler))
    return Start(network, scheduler, parts.schedule, folder.own_config())


def checkpoint_path(config: Config) -> Path:
    """Where a run's checkpoint lies."""
    return Path(config.output) / _CHECKPOINT


def crop_indices(step: int, batch_size: int, count: int, seed: int) -> Int[np.ndarray, " batch"]:
    """Which crops step k sees: each crop once an epoch, in an order shuffled anew each epoch."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    return np.array([_order(position // count, count, seed)[position % count] for position in positions.tolist()])


@lru_cache(maxsize=2)  # a step may span two epochs
def _order(epoch: int, count: int, seed: int) -> Int[np.ndarray, " count"]:
    return np.random.default_rng([seed, epoch]).permutation(count)


def learning_rate_factor(step: int, options: Training) -> float:
    """Linear increase over the warm-up, constant, linear decrease over the cool-down."""
    factor = min(1.0, (step + 1) / max(1, options.warmup_steps))
    if options.cooldown_steps:
        factor = min(factor, (options.steps - step) / (options.cooldown_steps + 1))
    return max(0.0, factor)
