"""Turns checkpoints of improved-diffusion and guided-diffusion into diffusers folders.

Both are the U-Net of Nichol and Dhariwal (arXiv 2102.09672, 2105.05233), the network of
DiffPath's own CelebA model and of OpenAI's ImageNet-64 models. Their parameters are a flat
list of blocks, which the table below renames; three things need more than a name:

* attention keeps query, key and value in one convolution, per head ``(q, k, v)`` in the
  legacy order or all heads' q, then k, then v in the new one: three matrices here;
* a constant *number* of heads gives heads of different widths where levels differ in
  channels, which a ``UNet2DModel`` cannot say. It goes into ``diffpath.json``, which
  diffpath reads (diffusers alone does not);
* timesteps of a long schedule are rescaled to 0–1000 before the network sees them:
  ``timestep_scale`` in ``diffpath.json``.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError
from .folder import OWN_CONFIG, WEIGHTS, let_others_read

State = dict[str, Tensor]  # parameters by name

GROUPS = 32
# The channel multipliers that the original scripts choose by image size
_CHANNEL_MULT = {32: (1, 2, 2, 2), 64: (1, 2, 3, 4), 128: (1, 1, 2, 3, 4), 256: (1, 1, 2, 2, 4, 4)}


@dataclass(frozen=True)
class Architecture:
    """The flags that the checkpoint was trained with; names and defaults are those of the original scripts.

    Attributes:
        image_size: side of the training images, in pixels
        num_channels: channels of the first level
        channel_mult: channels of each level, in multiples of ``num_channels``
        num_res_blocks: residual blocks per level
        attention_resolutions: sides, in pixels, at which there is attention
        num_heads: attention heads, if ``num_head_channels`` is None
        num_head_channels: channels per head
        use_new_attention_order: whether q, k, v are split before the heads are
        scale_shift_norm: whether the timestep scales and shifts the normalised features
        resblock_updown: whether residual blocks, not convolutions, change the resolution
        learn_sigma: whether the network also predicts variances
        num_classes: of a class-conditional network, else None
        predict_xstart: whether it predicts the clean image instead of the noise
        diffusion_steps: length of the schedule
        noise_schedule: ``"linear"`` or ``"cosine"``
        rescale_timesteps: whether the network saw timesteps as t · 1000 / diffusion_steps
    """

    image_size: int
    num_channels: int = 128
    channel_mult: tuple[int, ...] | None = None
    num_res_blocks: int = 2
    attention_resolutions: tuple[int, ...] = (16, 8)
    num_heads: int = 4
    num_head_channels: int | None = None
    use_new_attention_order: bool = False
    scale_shift_norm: bool = True
    resblock_updown: bool = False
    learn_sigma: bool = False
    num_classes: int | None = None
    predict_xstart: bool = False
    diffusion_steps: int = 1000
    noise_schedule: str = "linear"
    rescale_timesteps: bool = True

    def __post_init__(self) -> None:
        channel_mult = self.channel_mult
        if channel_mult is None:
            if self.image_size not in _CHANNEL_MULT:
                raise ModelError(
                    f"there is no usual channel_mult for image_size {self.image_size}; give --channel-mult, as in 1,2,2"
                )
            channel_mult = _CHANNEL_MULT[self.image_size]
            object.__setattr__(self, "channel_mult", channel_mult)
        if self.noise_schedule not in ("linear", "cosine"):
            raise ModelError(f"noise_schedule must be linear or cosine, got {self.noise_schedule!r}")
        if self.num_channels % GROUPS:
            raise ModelError(f"num_channels must be a multiple of {GROUPS}, got {self.num_channels}")
        sides = [self.image_size // 2**level for level in range(len(channel_mult))]
        for side in self.attention_resolutions:
            if side not in sides:
                raise ModelError(f"attention_resolutions must be among {sides} for these levels, got {side}")

    @property
    def levels(self) -> list[tuple[int, bool]]:
        """For each level, from fine to coarse: its channels and whether it has attention."""
        assert self.channel_mult is not None  # __post_init__ sees to it
        return [
            (self.num_channels * factor, self.image_size // 2**level in self.attention_resolutions)
            for level, factor in enumerate(self.channel_mult)
        ]

    def heads(self, channels: int) -> int:
        """How many attention heads a block of so many channels has."""
        return channels // self.num_head_channels if self.num_head_channels else self.num_heads

    def unet_config(self) -> dict[str, Any]:
        """The arguments of the ``UNet2DModel`` that computes the same."""
        down = [_block_type("Down", attention, self.resblock_updown) for _, attention in self.levels]
        up = [_block_type("Up", attention, self.resblock_updown) for _, attention in reversed(self.levels)]
        # The coarsest and finest level change no resolution, whatever their type says
        resample = "resnet" if self.resblock_updown else "conv"
        coarsest = self.levels[-1][0]
        return dict(
            sample_size=self.image_size,
            in_channels=3,
            out_channels=6 if self.learn_sigma else 3,
            block_out_channels=tuple(channels for channels, _ in self.levels),
            layers_per_block=self.num_res_blocks,
            down_block_types=tuple(down),
            up_block_types=tuple(up),
            downsample_type=resample,
            upsample_type=resample,
            resnet_time_scale_shift="scale_shift" if self.scale_shift_norm else "default",
            attention_head_dim=coarsest // self.heads(coarsest),
            norm_num_groups=GROUPS,
            attn_norm_num_groups=GROUPS,
            norm_eps=1e-5,
            flip_sin_to_cos=True,
            freq_shift=0,
            num_class_embeds=self.num_classes,
        )

    def scheduler_config(self) -> dict[str, Any]:
        """The arguments of the ``DDPMScheduler`` with the same noise levels."""
        config = dict(
            num_train_timesteps=self.diffusion_steps,
            prediction_type="sample" if self.predict_xstart else "epsilon",
            variance_type="learned_range" if self.learn_sigma else "fixed_small",
        )
        if self.noise_schedule == "cosine":
            return dict(config, beta_schedule="squaredcos_cap_v2")
        # Ho et al.'s 0.0001 to 0.02 for 1000 steps, as much noise in all for any number
        scale = 1000 / self.diffusion_steps
        return dict(config, beta_schedule="linear", beta_start=scale * 0.0001, beta_end=scale * 0.02)

    def own_config(self) -> dict[str, Any]:
        """What diffpath must know beside diffusers' two configurations."""
        own = {}
        if self.rescale_timesteps and self.diffusion_steps != 1000:
            own["timestep_scale"] = 1000 / self.diffusion_steps
        with_attention = {channels for channels, attention in self.levels if attention} | {self.levels[-1][0]}
        if self.num_head_channels is None and len(with_attention) > 1:
            own["num_attention_heads"] = self.num_heads
        return own


def convert_checkpoint(
    path: str | os.PathLike[str], folder: str | os.PathLike[str], architecture: Architecture
) -> None:
    """Writes a checkpoint as a diffusers pipeline folder in safetensors.

    Args:
        path: a ``.pt`` file: a state dict of improved-diffusion or guided-diffusion
        folder: where to write; must not hold a model yet
        architecture: an :class:`Architecture`

    Raises:
        ModelError: if the file is no such checkpoint, needs unpickling of more than
            tensors, or does not match the architecture
    """
    from diffusers import DDPMScheduler, UNet2DModel

    folder = Path(folder)
    if (folder / "unet").exists():
        raise ModelError(f"{folder} already holds a model; choose another folder or remove it")
    state = convert_state(_read_checkpoint(path), architecture)
    network = UNet2DModel(**architecture.unet_config())
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    _check_shapes(path, state, expected)
    network.load_state_dict(state)

    network.save_pretrained(folder / "unet", safe_serialization=True)
    DDPMScheduler(**architecture.scheduler_config()).save_pretrained(folder / "scheduler")
    let_others_read(folder)
    index = {
        "_class_name": "DDPMPipeline",
        "unet": ["diffusers", "UNet2DModel"],
        "scheduler": ["diffusers", "DDPMScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    if own := architecture.own_config():
        (folder / OWN_CONFIG).write_text(json.dumps(own, indent=2) + "\n")
    if not (folder / "unet" / WEIGHTS).is_file():
        raise ModelError(f"the weights of {path} are too large for one file {WEIGHTS}")


def convert_state(state: Mapping[str, Tensor], architecture: Architecture) -> State:
    """Renames the parameters of a checkpoint to those of a ``UNet2DModel``.

    Args:
        state: parameters by their original names
        architecture: an :class:`Architecture`

    Returns:
        float32 parameters by their new names

    Raises:
        ModelError: if a parameter is missing, left over or of an impossible shape
    """
    rest = {name: value.float() for name, value in state.items()}
    converted: State = {}
    for kind, old, new in _blocks(architecture):
        try:
            for name, value in _TRANSLATIONS[kind](rest, old, architecture).items():
                converted[f"{new}.{name}"] = value
        except KeyError as error:
            raise ModelError(
                f"the checkpoint has no parameter {error.args[0]!r}, which these flags ask for; check image size, "
                "channel multipliers, residual blocks and attention resolutions"
            ) from error
    if rest:
        raise ModelError(
            f"the checkpoint has {len(rest)} parameters more than these flags account for, such as "
            f"{min(rest)!r}; check image size, channel multipliers, residual blocks, attention and classes"
        )
    return converted


def _block_type(direction: str, attention: bool, resblock_updown: bool) -> str:
    if attention:
        return f"Attn{direction}Block2D"
    if resblock_updown:
        return f"Resnet{direction}sampleBlock2D"
    return f"{direction}Block2D"


def _blocks(architecture: Architecture) -> Iterator[tuple[str, str, str]]:
    """Every block as (kind, original prefix, prefix in diffusers), in the original order."""
    yield "layer", "time_embed.0", "time_embedding.linear_1"
    yield "layer", "time_embed.2", "time_embedding.linear_2"
    if architecture.num_classes:
        yield "embedding", "label_emb", "class_embedding"
    yield "layer", "input_blocks.0.0", "conv_in"

    position = 1
    deepest = len(architecture.levels) - 1
    for level, (_, attention) in enumerate(architecture.levels):
        for block in range(architecture.num_res_blocks):
            yield "resnet", f"input_blocks.{position}.0", f"down_blocks.{level}.resnets.{block}"
            if attention:
                yield "attention", f"input_blocks.{position}.1", f"down_blocks.{level}.attentions.{block}"
            position += 1
        if level < deepest:
            yield _resampling(architecture, f"input_blocks.{position}.0", "op", f"down_blocks.{level}.downsamplers.0")
            position += 1

    yield "resnet", "middle_block.0", "mid_block.resnets.0"
    yield "attention", "middle_block.1", "mid_block.attentions.0"
    yield "resnet", "middle_block.2", "mid_block.resnets.1"

    position = 0
    for level, (_, attention) in enumerate(reversed(architecture.levels)):
        for block in range(architecture.num_res_blocks + 1):
            yield "resnet", f"output_blocks.{position}.0", f"up_blocks.{level}.resnets.{block}"
            if attention:
                yield "attention", f"output_blocks.{position}.1", f"up_blocks.{level}.attentions.{block}"
            if level < deepest and block == architecture.num_res_blocks:
                old = f"output_blocks.{position}.{2 if attention else 1}"
                yield _resampling(architecture, old, "conv", f"up_blocks.{level}.upsamplers.0")
            position += 1

    yield "layer", "out.0", "conv_norm_out"
    yield "layer", "out.2", "conv_out"


def _resampling(architecture: Architecture, old: str, convolution: str, new: str) -> tuple[str, str, str]:
    if architecture.resblock_updown:
        return "resnet", old, new
    return "layer", f"{old}.{convolution}", f"{new}.conv"


def _read_checkpoint(path: str | os.PathLike[str]) -> State:
    try:
        # mmap: a checkpoint of a GB is not held twice in memory
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise ModelError(f"there is no checkpoint {path}; download it first") from error
    except Exception as error:  # an unpickler, given something else, raises nearly anything
        raise ModelError(f"{path} is not a checkpoint of plain tensors, and nothing else is loaded") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ModelError(f"{path} is not a state dict: a mapping of names to tensors, as the training scripts save it")
    return state


def _check_shapes(path: str | os.PathLike[str], state: State, expected: Mapping[str, tuple[int, ...]]) -> None:
    for name, shape in expected.items():
        if name in state and tuple(state[name].shape) != shape:
            raise ModelError(
                f"{path} has {name} of shape {tuple(state[name].shape)} where these flags give {shape}; check "
                "channels, channel multipliers, learned sigma and scale-shift norm"
            )
    if different := sorted(state.keys() ^ expected.keys()):
        raise ModelError(f"{path} and these flags differ in parameters such as {different[0]!r}; check the flags")


def _layer(state: State, old: str, architecture: Architecture) -> State:
    return {part: state.pop(f"{old}.{part}") for part in ("weight", "bias")}


def _embedding(state: State, old: str, architecture: Architecture) -> State:
    return {"weight": state.pop(f"{old}.weight")}


def _resnet(state: State, old: str, architecture: Architecture) -> State:
    names = {
        "in_layers.0": "norm1",
        "in_layers.2": "conv1",
        "emb_layers.1": "time_emb_proj",
        "out_layers.0": "norm2",
        "out_layers.3": "conv2",
    }
    if f"{old}.skip_connection.weight" in state:
        names["skip_connection"] = "conv_shortcut"
    return {
        f"{new}.{part}": value
        for name, new in names.items()
        for part, value in _layer(state, f"{old}.{name}", architecture).items()
    }


def _attention(state: State, old: str, architecture: Architecture) -> State:
    converted: State = {}
    for name, new in (("norm", "group_norm"), ("proj_out", "to_out.0")):
        for part, value in _layer(state, f"{old}.{name}", architecture).items():
            converted[f"{new}.{part}"] = value.flatten(1) if value.ndim > 1 else value
    for part, value in _layer(state, f"{old}.qkv", architecture).items():
        channels = len(value) // 3
        heads = architecture.heads(channels)
        if channels % heads:
            raise ModelError(f"{old} has {channels} channels, which {heads} heads do not divide; check --num-heads")
        # Rows of the joint convolution: (q k v, head, channel) or, in the legacy order, (head, q k v, channel)
        rows = (3, heads) if architecture.use_new_attention_order else (heads, 3)
        value = value.reshape(*rows, channels // heads, -1)
        value = value if architecture.use_new_attention_order else value.transpose(0, 1)
        for name, third in zip(("to_q", "to_k", "to_v"), value.reshape(3, channels, -1)):
            converted[f"{name}.{part}"] = third if part == "weight" else third.flatten()
    return converted


_TRANSLATIONS: dict[str, Callable[[State, str, Architecture], State]] = {
    "layer": _layer,
    "embedding": _embedding,
    "resnet": _resnet,
    "attention": _attention,
}
