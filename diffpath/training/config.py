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

import json
import types
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path

DTYPES = ("auto", "float32", "bfloat16")

NETWORK = dict(
    block_out_channels=(32, 64, 128, 128),
    down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    layers_per_block=1,
    norm_num_groups=8,
    attention_head_dim=32,
)
SCHEDULE = dict(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2", prediction_type="epsilon")


@dataclass(frozen=True)
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
    crops: int
    smallest: int = 32
    largest: float = 1.0
    source: str = ""
    licence: str = ""

    def __post_init__(self):
        _at_least("data.folders.crops", self.crops, 1)
        _at_least("data.folders.smallest", self.smallest, 1)
        if not 0 < self.largest <= 1:
            raise ValueError(f"data.folders.largest must be in (0, 1], a share of the shorter side, got {self.largest}")


@dataclass(frozen=True)
class Data:
    """The training pictures.

    Attributes:
        folders: at least one :class:`Folder`
        resolution: side of the crops after filtering, in pixels
        held_out: share of each folder's *files* that is kept for measuring, in (0, 1)
        held_out_crops: how many crops of those files are measured
        cache: folder for the crops, so that several runs share them; by default within ``output``
    """

    folders: tuple
    resolution: int = 32
    held_out: float = 0.05
    held_out_crops: int = 512
    cache: str = ""

    def __post_init__(self):
        if not self.folders:
            raise ValueError("data.folders is empty; give at least one [[data.folders]] with path and crops")
        _at_least("data.resolution", self.resolution, 8)
        _at_least("data.held_out_crops", self.held_out_crops, 1)
        if not 0 < self.held_out < 1:
            raise ValueError(f"data.held_out must be a share of the files in (0, 1), got {self.held_out}")


@dataclass(frozen=True)
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

    steps: int = 2000
    batch_size: int = 128
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    cooldown_steps: int = 0
    betas: tuple = (0.9, 0.99)
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    ema: float = 0.999
    start_from: str = ""
    dtype: str = "auto"
    compile: bool = False
    channels_last: bool = True
    flip: bool = True
    checkpoint_every: int = 250
    samples: int = 36
    cpu_minutes: float = 0.0

    def __post_init__(self):
        for name in ("steps", "batch_size", "checkpoint_every"):
            _at_least(f"training.{name}", getattr(self, name), 1)
        for name in ("warmup_steps", "cooldown_steps", "samples", "weight_decay", "cpu_minutes"):
            _at_least(f"training.{name}", getattr(self, name), 0)
        for name in ("learning_rate", "gradient_clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"training.{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"training.ema must be in [0, 1), got {self.ema}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"training.betas must be two numbers in [0, 1), got {list(self.betas)}")
        if self.dtype not in DTYPES:
            raise ValueError(f"training.dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")


@dataclass(frozen=True)
class Config:
    """A training run: see the module's example."""

    output: str
    data: Data
    network: dict = field(default_factory=dict)
    schedule: dict = field(default_factory=dict)
    training: Training = field(default_factory=Training)
    seed: int = 0
    description: str = ""

    def __post_init__(self):
        for name in ("in_channels", "out_channels", "sample_size"):
            if name in self.network:
                raise ValueError(f"network.{name} can't be set: images are RGB, and data.resolution gives their side")
        if self.training.start_from and (self.network or self.schedule):
            raise ValueError(
                "network and schedule are read from the model in training.start_from; leave out the tables "
                "[network] and [schedule], or start_from"
            )

    def to_dict(self):
        """The same as JSON-ready values."""
        return json.loads(json.dumps(asdict(self)))


def read_config(path):
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
    folders = tuple(_build(Folder, folder, "data.folders") for folder in data["folders"])
    parts = {
        **table,
        "data": _build(Data, {**data, "folders": folders}, "data"),
        "training": _build(Training, table.get("training", {}), "training"),
    }
    return _resolve_paths(_build(Config, parts, ""), path.resolve().parent)


def _parse(path):
    if path.suffix not in (".toml", ".json"):
        raise ValueError(f"a configuration must be a .toml or .json file, got {path}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} can't be read ({error}); give the path of a configuration") from error
    try:
        return json.loads(text) if path.suffix == ".json" else _toml().loads(text)
    except ValueError as error:  # also the parsers' own errors
        raise ValueError(f"{path} is not valid {path.suffix[1:].upper()}: {error}") from error


def _toml():
    try:
        import tomllib
    except ImportError:  # Python 3.10
        try:
            import tomli as tomllib
        except ImportError as error:
            raise ValueError("Python 3.10 reads TOML with the package tomli: install it, or write JSON") from error
    return tomllib


def _build(cls, table, where):
    """A dataclass from a table, with a sentence for unknown, missing and mistyped keys."""
    prefix = f"{where}." if where else ""
    if not isinstance(table, dict):
        raise ValueError(f"{where} must be a table, got {table!r}")
    known = {f.name: f for f in fields(cls)}
    for name, value in table.items():
        if name not in known:
            raise ValueError(f"unknown key {prefix + name!r}; the keys are {', '.join(prefix + key for key in known)}")
        table = {**table, name: _typed(prefix + name, value, known[name].type)}
    try:
        return cls(**table)
    except TypeError as error:
        missing = [prefix + f.name for f in fields(cls) if f.name not in table and _is_required(f)]
        raise ValueError(f"the configuration lacks {' and '.join(missing)}") from error


def _typed(name, value, kind):
    if isinstance(kind, types.GenericAlias) or kind in (Data, Training):
        return value
    if kind is float and type(value) is int:
        return float(value)
    if kind is tuple and isinstance(value, list):
        return tuple(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        words = {str: "text", int: "a whole number", float: "a number", bool: "true or false", tuple: "a list"}
        raise ValueError(f"{name} must be {words.get(kind, 'a table')}, got {value!r}")
    return value


def _is_required(f):
    return f.default is MISSING and f.default_factory is MISSING


def _resolve_paths(config, base):
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


def _at_least(name, value, least):
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
