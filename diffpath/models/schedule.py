"""Noise levels of a model, and what its network's output says about the noise.

Every family of diffusion models noises an image linearly and lets its network predict a
linear function of image and noise, so that one table with a row per timestep serves all:

    x_t = a_t x₀ + σ_t ε                 signal, sigma
    F = network(s_t x_t, τ_t)            input_scale, conditioning
    ε̂ = p_t x_t + q_t F                  noise_from_noisy, noise_from_output
    x̂₀ = (x_t − σ_t ε̂) / a_t

| family | a | σ | s | τ | F predicts | p | q |
|---|---|---|---|---|---|---|---|
| variance preserving | √ᾱ | √(1−ᾱ) | 1 | t | ε | 0 | 1 |
| | | | | | x₀ ("sample") | 1/σ | −a/σ |
| | | | | | v = a ε − σ x₀ (2202.00512) | σ | a |
| variance exploding (2011.13456) | 1 | σ | 1 | σ | the score −ε/σ | 0 | −σ |
| EDM (2206.00364) | 1 | σ | 1/√(σ²+d²) | ln(σ)/4 | D = c_skip x + c_out F | (1−c_skip)/σ | −c_out/σ |

with d = sigma_data, c_skip = d²/(σ²+d²), c_out = ±σ d/√(σ²+d²).
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Num
from torch import Tensor

from ..errors import ModelError
from ..options import PREDICTION_TYPES

VARIANCE_EXPLODING = "ScoreSdeVeScheduler"
_EDM = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
_EDM_KEYS = ("num_train_timesteps", "prediction_type", "sigma_min", "sigma_max", "sigma_data", "sigma_schedule")
# These say how fast the noise grows by name alone; all others need two ends
_BETAS_WITHOUT_ENDS = ("squaredcos_cap_v2", "laplace")


Levels = Tensor | np.ndarray | Sequence[float]  # one for each timestep


@dataclass(frozen=True)
class Schedule:
    """One row per timestep, each attribute a tensor ``(num_train_timesteps,)``, noise increasing; see the module.

    ``alphas_cumprod`` is ᾱ, as it was read, of variance-preserving models only.
    """

    signal: Float32[Tensor, " t"]
    sigma: Float32[Tensor, " t"]
    input_scale: Float32[Tensor, " t"]
    conditioning: Num[Tensor, " t"]
    noise_from_noisy: Float32[Tensor, " t"]
    noise_from_output: Float32[Tensor, " t"]
    alphas_cumprod: Float32[Tensor, " t"] | None = None

    def __len__(self) -> int:
        return len(self.signal)

    def to(self, device: torch.device | str) -> "Schedule":
        """The same on a device."""
        rows = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: row.to(device) for name, row in rows.items() if row is not None})

    @classmethod
    def variance_preserving(
        cls, alphas_cumprod: Levels, prediction_type: str = "epsilon", timestep_scale: float = 1
    ) -> "Schedule":
        """A schedule of ᾱ.

        Args:
            alphas_cumprod: ᾱ for every training timestep, in [0, 1]
            prediction_type: what the network predicts, one of ``PREDICTION_TYPES``
            timestep_scale: the network is told t times this
        """
        alphas = torch.as_tensor(alphas_cumprod, dtype=torch.float32)
        signal, sigma = alphas.sqrt(), (1 - alphas).sqrt()
        if prediction_type == "epsilon":
            from_noisy, from_output = torch.zeros_like(sigma), torch.ones_like(sigma)
        elif prediction_type == "sample":
            from_noisy, from_output = 1 / sigma, -signal / sigma
        elif prediction_type == "v_prediction":
            from_noisy, from_output = sigma, signal
        else:
            raise ModelError(f"prediction_type must be one of {', '.join(PREDICTION_TYPES)}, got {prediction_type!r}")
        timesteps = torch.arange(len(alphas), device=alphas.device)
        conditioning = timesteps if timestep_scale == 1 else timesteps * timestep_scale
        return cls(signal, sigma, torch.ones_like(sigma), conditioning, from_noisy, from_output, alphas)

    @classmethod
    def variance_exploding(cls, sigmas: Levels) -> "Schedule":
        """A schedule of increasing noise levels σ for a network that predicts the score −ε/σ."""
        sigma = torch.as_tensor(sigmas, dtype=torch.float32)
        one = torch.ones_like(sigma)
        return cls(one, sigma, one, sigma, torch.zeros_like(sigma), -sigma)

    @classmethod
    def edm(cls, sigmas: Levels, sigma_data: float, prediction_type: str = "epsilon") -> "Schedule":
        """A schedule of increasing noise levels σ for a network preconditioned as in EDM.

        Args:
            sigmas: noise levels
            sigma_data: d, the data's standard deviation
            prediction_type: ``"epsilon"`` or ``"v_prediction"``: the sign of c_out
        """
        if prediction_type not in ("epsilon", "v_prediction"):
            raise ModelError(f"an EDM model's prediction_type must be epsilon or v_prediction, got {prediction_type!r}")
        sigma = torch.as_tensor(sigmas, dtype=torch.float64)
        total = (sigma**2 + sigma_data**2).sqrt()
        sign = 1 if prediction_type == "epsilon" else -1
        rows = (
            torch.ones_like(sigma),
            sigma,
            1 / total,
            0.25 * sigma.log(),
            sigma / total**2,  # (1 − c_skip) / σ
            -sign * sigma_data / total,  # −c_out / σ
        )
        return cls(*(row.float() for row in rows))


def read_schedule(
    config: Mapping[str, Any], name: str, *, prediction_type: str | None = None, timestep_scale: float = 1
) -> Schedule:
    """Reads a schedule from a diffusers scheduler's configuration; nothing is guessed.

    Args:
        config: the content of ``scheduler_config.json``
        name: of the model, for errors
        prediction_type: for a configuration that does not say it
        timestep_scale: the network is told t times this

    Returns:
        a :class:`Schedule`

    Raises:
        ModelError: if a key is missing or contradicts ``prediction_type``, or if the
            scheduler is of another family
    """
    try:
        schedule = _read_schedule(config, name, prediction_type, timestep_scale)
        sound = len(schedule) >= 2 and bool(schedule.signal.isfinite().all() and schedule.sigma.isfinite().all())
    except ModelError:
        raise
    except Exception as error:  # of values that no schedule has
        raise ModelError(f"the scheduler of model {name!r} cannot be used: {error}") from error
    if not sound:
        raise ModelError(f"the scheduler of model {name!r} has no two timesteps whose noise is a number")
    return schedule


def _read_schedule(
    config: Mapping[str, Any], name: str, prediction_type: str | None, timestep_scale: float
) -> Schedule:
    import diffusers

    kind = _require(config, "_class_name", name)
    said = config.get("prediction_type")
    if prediction_type and said and prediction_type != said:
        raise ModelError(f"model {name!r} says prediction_type {said!r}, so that {prediction_type!r} cannot be given")
    config = {**config, "prediction_type": said or prediction_type}

    if kind == VARIANCE_EXPLODING:
        for key in ("num_train_timesteps", "sigma_min", "sigma_max"):
            _require(config, key, name)
        scheduler = _build(diffusers.ScoreSdeVeScheduler, config, name)
        return Schedule.variance_exploding(scheduler.discrete_sigmas)
    if kind in _EDM:
        for key in (*_EDM_KEYS, *["rho"] * (config.get("sigma_schedule") == "karras")):
            _require(config, key, name)
        scheduler = _build(getattr(diffusers, kind), config, name)
        return Schedule.edm(scheduler.sigmas[:-1].flip(0), config["sigma_data"], config["prediction_type"])

    scheduler_class = getattr(diffusers, str(kind), None)
    if not (isinstance(scheduler_class, type) and issubclass(scheduler_class, diffusers.SchedulerMixin)):
        raise ModelError(f"diffusers has no scheduler {kind!r}, which model {name!r} names; update diffusers")
    if "beta_schedule" not in inspect.signature(scheduler_class).parameters:
        what = "flow matching" if kind.startswith("FlowMatch") else "another family"
        raise ModelError(
            f"the scheduler of model {name!r} is {kind}, of {what}, which has no variance-preserving schedule; choose "
            f"a model whose scheduler has one, such as DDPMScheduler, or is {VARIANCE_EXPLODING} or {' or '.join(_EDM)}"
        )
    for key in ("num_train_timesteps", "prediction_type"):
        _require(config, key, name)
    if config.get("trained_betas") is None:
        beta_schedule = _require(config, "beta_schedule", name)
        for key in ("beta_start", "beta_end") if beta_schedule not in _BETAS_WITHOUT_ENDS else ():
            _require(config, key, name)
    if config["prediction_type"] not in PREDICTION_TYPES:
        raise ModelError(
            f"prediction_type of model {name!r} must be one of {', '.join(PREDICTION_TYPES)}, "
            f"got {config['prediction_type']!r}; choose another model"
        )
    scheduler = _build(scheduler_class, config, name)
    return Schedule.variance_preserving(scheduler.alphas_cumprod, config["prediction_type"], timestep_scale)


def _require(config: Mapping[str, Any], key: str, name: str) -> Any:
    if config.get(key) is None:
        way_out = "pass prediction_type='epsilon', 'sample' or 'v_prediction'" if key == "prediction_type" else ""
        raise ModelError(
            f"scheduler_config.json of model {name!r} does not say {key!r}; add the key{way_out and ', or ' + way_out}"
        )
    return config[key]


def _build(scheduler_class: Any, config: Mapping[str, Any], name: str) -> Any:
    try:
        return scheduler_class.from_config(config)
    except Exception as error:  # what a scheduler raises on impossible values differs by class and version
        raise ModelError(f"the scheduler of model {name!r} cannot be built: {error}") from error
