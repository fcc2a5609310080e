"""Training steps, checkpoints and exact resume.

    x_t = √ᾱ_t x₀ + √(1−ᾱ_t) ε,   t uniform,   loss = mean (network(x_t, t) − target)²

where the target is ε, x₀ or v as ``prediction_type`` says. All that is random in step k
(order of the crops, flips, t, ε, dropout) is drawn from the seed and k alone, so that a
checkpoint needs no generator's state and a resumed run repeats the uninterrupted one.
"""

import copy
import math
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from ..models.folder import find_folder
from ..models.loading import load_model, resolve_device, resolve_dtype
from ..models.predictor import NoisePredictor
from ..models.schedule import Schedule
from .config import NETWORK, SCHEDULE

_CHECKPOINT = "checkpoint.pt"
_MAY_CHANGE = ("steps", "cpu_minutes", "checkpoint_every", "samples", "compile")


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

    def __init__(self, config, crops, device=None):
        self.config, self.options, self.crops = config, config.training, crops
        self.device = resolve_device(device)
        self.dtype = self._choose_dtype()
        torch.manual_seed(config.seed)
        network, self.scheduler = build_network(config)
        if self.options.channels_last:
            network = network.to(memory_format=torch.channels_last)
        self.network = network.to(self.device).train()
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=self.options.learning_rate,
            betas=self.options.betas,
            weight_decay=self.options.weight_decay,
        )
        self._forward = torch.compile(self.network) if self.options.compile else self.network
        self._alphas_cumprod = self.scheduler.alphas_cumprod.to(self.device)
        self.step, self.losses, self.cpu_seconds, self.seconds = 0, [], 0.0, 0.0

    @property
    def predictor(self):
        """The averaged network as the method sees it."""
        return NoisePredictor(
            lambda noisy, timesteps: self.average(noisy, timesteps, return_dict=False)[0],
            Schedule.variance_preserving(self._alphas_cumprod, self.scheduler.config.prediction_type),
            resolution=self.config.data.resolution,
            device=self.device,
            dtype=self.dtype,
            name="in training",
        )

    @property
    def out_of_time(self):
        """Whether ``cpu_minutes`` is used up."""
        return 0 < self.options.cpu_minutes * 60 <= self.cpu_seconds

    def train_step(self):
        """One update; returns its loss."""
        started, cpu_started = time.perf_counter(), time.process_time()
        images, noise, timesteps = self._batch()
        alphas = self._alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        noisy = alphas.sqrt() * images + (1 - alphas).sqrt() * noise
        exact = self.dtype == torch.float32  # without autocast, which not every device knows
        with nullcontext() if exact else torch.autocast(self.device.type, dtype=self.dtype):
            prediction = self._forward(noisy, timesteps, return_dict=False)[0]
        loss = (prediction.float() - self._target(images, noise, alphas)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.options.gradient_clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate * learning_rate_factor(self.step, self.options)
        self.optimizer.step()
        update_average(self.average, self.network, average_decay(self.step, self.options.ema))
        self.step += 1
        self.losses.append(loss.item())
        self.seconds += time.perf_counter() - started
        self.cpu_seconds += time.process_time() - cpu_started
        if not math.isfinite(self.losses[-1]):
            raise ValueError(
                f"the loss is {self.losses[-1]} at step {self.step}; use a smaller training.learning_rate, or float32"
            )
        return self.losses[-1]

    def save_checkpoint(self):
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

    def load_checkpoint(self):
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
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name in ("step", "losses", "cpu_seconds", "seconds"):
            setattr(self, name, state[name])

    def _refuse_changes(self, before, crops, path):
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

    def _batch(self):
        """Images in [−1, 1] ``(B, 3, side, side)``, noise, and timesteps ``(B,)`` of this step."""
        size, generator = self.options.batch_size, torch.Generator().manual_seed(self._step_seed())
        images = torch.from_numpy(
            self.crops.train[crop_indices(self.step, size, len(self.crops.train), self.config.seed)]
        )
        images = images.to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        if self.options.flip:
            mirrored = torch.rand(size, generator=generator).to(self.device) < 0.5
            images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
        timesteps = torch.randint(len(self._alphas_cumprod), (size,), generator=generator).to(self.device)
        noise = torch.randn(images.shape, generator=generator).to(self.device)
        torch.manual_seed(self._step_seed())  # for a network with dropout
        layout = torch.channels_last if self.options.channels_last else torch.contiguous_format
        return images.contiguous(memory_format=layout), noise.contiguous(memory_format=layout), timesteps

    def _step_seed(self):
        return int(np.random.SeedSequence([self.config.seed, self.step]).generate_state(1, np.uint64)[0]) >> 1

    def _target(self, images, noise, alphas):
        kind = self.scheduler.config.prediction_type
        if kind == "epsilon":
            return noise
        return images if kind == "sample" else alphas.sqrt() * noise - (1 - alphas).sqrt() * images

    def _choose_dtype(self):
        if self.options.dtype != "auto":
            return resolve_dtype(self.options.dtype, self.device)
        fastest = resolve_dtype(None, self.device)
        return fastest if fastest == torch.bfloat16 else torch.float32  # float16 gradients would underflow


def build_network(config):
    """The network and the scheduler that a configuration asks for."""
    from diffusers import DDPMScheduler, UNet2DModel

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
    return network, scheduler


def _load_start(config):
    from diffusers import DDPMScheduler, UNet2DModel

    start = config.training.start_from
    folder = find_folder(start).path
    load_model(start, "cpu", "float32")  # says what is wrong with the folder
    network = UNet2DModel.from_pretrained(
        folder, subfolder="unet", use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False
    )
    if network.config.in_channels != 3 or network.config.sample_size != config.data.resolution:
        raise ValueError(
            f"training.start_from must be an RGB model of data.resolution {config.data.resolution}, got "
            f"{network.config.in_channels} channels of {network.config.sample_size} pixels"
        )
    return network, DDPMScheduler.from_pretrained(folder, subfolder="scheduler", local_files_only=True)


def checkpoint_path(config):
    """Where a run's checkpoint lies."""
    return Path(config.output) / _CHECKPOINT


def crop_indices(step, batch_size, count, seed):
    """Which crops step k sees: each crop once an epoch, in an order shuffled anew each epoch."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = positions // count
    orders = {epoch: np.random.default_rng([seed, epoch]).permutation(count) for epoch in np.unique(epochs)}
    return np.array([orders[epoch][position % count] for epoch, position in zip(epochs, positions)])


def learning_rate_factor(step, options):
    """Linear increase over the warm-up, constant, linear decrease over the cool-down."""
    factor = min(1.0, (step + 1) / max(1, options.warmup_steps))
    if options.cooldown_steps:
        factor = min(factor, (options.steps - step) / (options.cooldown_steps + 1))
    return max(0.0, factor)


def average_decay(step, greatest):
    """The average's decay: short at first, so that the initial weights are soon forgotten."""
    return min(greatest, (1 + step) / (10 + step))


@torch.no_grad()
def update_average(average, network, decay):
    """average ← decay · average + (1 − decay) · network, for every parameter and buffer."""
    for kept, new in zip(average.state_dict().values(), network.state_dict().values()):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)
