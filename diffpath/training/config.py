"""What a training run is made of, read from one TOML or JSON file.

A file has four tables; only ``data`` is needed::

    output = "runs/mixture"         # where everything goes, relative to this file
    seed = 0

    [data]
    resolution = 32
    [[data.folders]]
    path = "pictures/textures"      # searched recursively, relative to this file
    crops = 40000
    source = "supertuxkart-data, Debian"
    licence = "CC-BY-SA, per file"

    [network]                       # arguments of diffusers' UNet2DModel
    block_out_channels = [32, 64, 128, 128]

    [schedule]                      # arguments of diffusers' DDPMScheduler

    [training]
    steps = 2000
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Dtype = Literal["auto", "float32", "bfloat16"]
_CHECKED = ConfigDict(extra="forbid")
_Count = Annotated[int, Field(ge=1)]
_NotNegative = Annotated[int, Field(ge=0)]
_Positive = Annotated[float, Field(gt=0)]

NETWORK: dict[str, Any] = {
    "block_out_channels": (32, 64, 128, 128),
    "down_block_types": ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": 32,
}
SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "epsilon",
}


@dataclass(frozen=True, config=_CHECKED)
class Folder:
    """One source of pictures.

    Attributes:
        path: a folder; its images are found recursively
        crops: how many crops are drawn, as evenly as possible over the files
        smallest: the least side of a crop, in pixels of the picture
        largest: the greatest, as a share of the picture's shorter side, in (0, 1]
        source, licence: said in the model card
    """

    path: str
    crops: _Count
    smallest: _Count = 32
    largest: float = 1.0
    source: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.largest <= 1:
            raise ValueError(f"data.folders.largest must be in (0, 1], a share of the shorter side, got {self.largest}")


@dataclass(frozen=True, config=_CHECKED)
class Data:
    """The training pictures.

    Attributes:
        folders: at least one :class:`Folder`
        resolution: side of the crops after filtering, in pixels
        held_out: share of each folder's *files* that is kept for measuring, in (0, 1)
        held_out_crops: how many crops of those files are measured
        cache: folder for the crops, so that several runs share them; by default within ``output``
    """

    folders: tuple[Folder, ...]
    resolution: Annotated[int, Field(ge=8)] = 32
    held_out: float = 0.05
    held_out_crops: _Count = 512
    cache: str = ""

    def __post_init__(self) -> None:
        if not self.folders:
            raise ValueError("data.folders is empty; give at least one [[data.folders]] with path and crops")
        if not 0 < self.held_out < 1:
            raise ValueError(f"data.held_out must be a share of the files in (0, 1), got {self.held_out}")


@dataclass(frozen=True, config=_CHECKED)
class Training:
    """The optimisation.

    Attributes:
        steps: updates in all
        batch_size: crops per update
        learning_rate: AdamW's, after ``warmup_steps`` of linear increase; it falls linearly
            to zero over the last ``cooldown_steps``
        betas, weight_decay: AdamW's
        gradient_clip: greatest norm of the gradient
        ema: greatest decay of the average of the weights, which is what is saved
        start_from: ``"bundled"`` or a diffusers folder whose weights and architecture the
            run starts from, in place of ``[network]`` and ``[schedule]``
        dtype: autocast type of the network: ``"auto"`` is bfloat16 where that is fast
        compile: whether ``torch.compile`` is used
        channels_last: whether the network's memory is laid out so
        flip: whether every second crop is mirrored
        checkpoint_every: steps between checkpoints
        samples: how many samples are drawn for the picture, 0 for none
        cpu_minutes: if positive, stop with a checkpoint after this much processor time
            (user + system, of all threads)
    """

    steps: _Count = 2000
    batch_size: _Count = 128
    learning_rate: _Positive = 1e-3
    warmup_steps: _NotNegative = 100
    cooldown_steps: _NotNegative = 0
    betas: tuple[float, ...] = (0.9, 0.99)
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    gradient_clip: _Positive = 1.0
    ema: float = 0.999
    start_from: str = ""
    dtype: Dtype = "auto"
    compile: bool = False
    channels_last: bool = True
    flip: bool = True
    checkpoint_every: _Count = 250
    samples: _NotNegative = 36
    cpu_minutes: Annotated[float, Field(ge=0)] = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.ema < 1:
            raise ValueError(f"training.ema must be in [0, 1), got {self.ema}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"training.betas must be two numbers in [0, 1), got {list(self.betas)}")


@dataclass(frozen=True, config=_CHECKED)
class Config:
    """A training run: see the module's example."""

    output: str
    data: Data
    network: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    training: Training = field(default_factory=Training)
    seed: int = 0
    description: str = ""

    def __post_init__(self) -> None:
        for name in ("in_channels", "out_channels", "sample_size"):
            if name in self.network:
                raise ValueError(f"network.{name} can't be set: images are RGB, and data.resolution gives their side")
        if self.training.start_from and (self.network or self.schedule):
            raise ValueError(
                "network and schedule are read from the model in training.start_from; leave out the tables "
                "[network] and [schedule], or start_from"
            )

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        return json.loads(json.dumps(asdict(self)))


def read_config(path: str | Path) -> Config:
    """Reads a configuration file.

    Args:
        path: a ``.toml`` or ``.json`` file; relative folders in it are relative to it

    Returns:
        a :class:`Config`

    Raises:
        ValueError: if the file can't be read, or a key or value in it is not valid
    """
    path = Path(path).expanduser()
    table = _parse(path)
    data = table.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("folders"), list):
        raise ValueError(f"{path} has no [[data.folders]]; give at least one, with path and crops")
    try:
        # As JSON, where lists are tuples and a whole number is a number, but nothing else is another kind
        config = TypeAdapter(Config).validate_json(json.dumps(table, default=str), strict=True)
    except ValidationError as error:
        raise ValueError(_sentence(error)) from error
    return _resolve_paths(config, path.resolve().parent)


def _parse(path: Path) -> dict[str, Any]:
    if path.suffix not in (".toml", ".json"):
        raise ValueError(f"a configuration must be a .toml or .json file, got {path}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} can't be read ({error}); give the path of a configuration") from error
    try:
        return json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:  # also the parsers' own errors
        raise ValueError(f"{path} is not valid {path.suffix[1:].upper()}: {error}") from error


# What a value must be, by the kind of pydantic's error
_MUST = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a table",
    "dataclass_type": "a table",
    "dataclass_exact_type": "a table",
    "greater_than": "positive",
}


def _sentence(errors: ValidationError) -> str:
    """The first of pydantic's errors in our words."""
    error = errors.errors()[0]
    name = ".".join(part for part in error["loc"] if isinstance(part, str))
    kind, about, value = error["type"], error.get("ctx", {}), error["input"]
    if kind == "value_error":  # one of the sentences above
        return str(about["error"])
    if kind == "unexpected_keyword_argument":
        keys = _known_keys(error["loc"][:-1])
        return f"unknown key {name!r}; the keys are {', '.join(keys)}"
    if kind == "missing":
        lacking = [".".join(p for p in e["loc"] if isinstance(p, str)) for e in errors.errors() if e["type"] == kind]
        return f"the configuration lacks {' and '.join(lacking)}"
    must = _MUST.get(kind)
    if kind == "greater_than_equal":
        must = f"at least {about['ge']}"
    if kind == "literal_error":
        must = f"one of {', '.join(get_args(Dtype))}"
    return f"{name} must be {must or error['msg']}, got {value!r}"


def _known_keys(where: tuple[int | str, ...]) -> list[str]:
    """The keys of a table of a configuration, each with the table's name."""
    names = tuple(part for part in where if isinstance(part, str))
    table = {(): Config, ("data",): Data, ("data", "folders"): Folder, ("training",): Training}[names]
    return [".".join([*names, each.name]) for each in fields(table)]


def _resolve_paths(config: Config, base: Path) -> Config:
    folders = tuple(replace(folder, path=str(base / Path(folder.path).expanduser())) for folder in config.data.folders)
    output = base / Path(config.output).expanduser()
    cache = base / Path(config.data.cache).expanduser() if config.data.cache else output / "crops"
    start = config.training.start_from
    if start and start != "bundled":
        start = str(base / Path(start).expanduser())
    return replace(
        config,
        output=str(output),
        data=replace(config.data, folders=folders, cache=str(cache)),
        training=replace(config.training, start_from=start),
    )
