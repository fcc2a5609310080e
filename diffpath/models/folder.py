"""What a model folder holds, and where; from disk or from the Hugging Face hub.

A diffusers pipeline keeps each part in a subfolder; early repositories, such as
google/ddpm-cifar10-32, have the network and its scheduler at the root.

Only configurations and safetensors are fetched and read, unless pickled weights are asked
for, which are then unpickled as tensors only. No code of a repository is ever run.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .limits import MAX_CONFIG_BYTES, check_config

BUNDLED_MODEL = "bundled"
WEIGHTS = "diffusion_pytorch_model.safetensors"
# What neither of diffusers' configurations can say of a model; written by ``diffpath convert``
OWN_CONFIG = "diffpath.json"
OWN_KEYS = ("timestep_scale", "num_attention_heads", "class_label")
NETWORKS, AUTOENCODERS, TEXT_ENCODERS = ("unet", "transformer"), ("vae", "vqvae"), ("text_encoder",)

_BUNDLED_FOLDER = Path(__file__).parent / BUNDLED_MODEL
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PICKLED = "diffusion_pytorch_model.bin"
_TEXT_WEIGHTS, _TEXT_PICKLED = "model.safetensors", "pytorch_model.bin"
_PARTS = ("", *(f"{part}/" for part in (*NETWORKS, *AUTOENCODERS)))
_CONFIGS = ["model_index.json", OWN_CONFIG, "config.json", "scheduler_config.json", "scheduler/*.json", "tokenizer/*"]
_CONFIGS += [f"{part}/config.json" for part in (*NETWORKS, *AUTOENCODERS, *TEXT_ENCODERS)]
_TENSORS = [
    f"{part}{name}"
    for part in _PARTS
    for name in (WEIGHTS, f"{WEIGHTS}.index.json", "diffusion_pytorch_model-*-of-*.safetensors")
]
_TENSORS += [f"{part}/{_TEXT_WEIGHTS}" for part in TEXT_ENCODERS]


@dataclass(frozen=True)
class ModelFolder:
    """A model's files.

    Attributes:
        path: the folder
        name: what the user called the model
        revision: the hub commit that the files are of, or None
        allow_pickle: whether pickled weights may be read where there are no safetensors
    """

    path: Path
    name: str
    revision: str | None = None
    allow_pickle: bool = False

    def part(self, names: Iterable[str]) -> Path | None:
        """The folder of the first of some parts that the model has, or None."""
        found = (self.path / name for name in names if (self.path / name / "config.json").is_file())
        return next(found, None)

    @property
    def network(self) -> Path:
        """The folder of the network: its own, or the root."""
        return self.part(NETWORKS) or self.path

    @property
    def scheduler(self) -> Path:
        """The path of the scheduler's configuration, in its own folder or at the root."""
        own = self.path / "scheduler" / "scheduler_config.json"
        root = self.path / "scheduler_config.json"
        return root if root.is_file() and not own.is_file() else own

    def read_json(self, path: Path) -> dict[str, Any]:
        """The content of a configuration file.

        Raises:
            ModelError: if the folder has no such file, it is not JSON, or it says what no model has
        """
        try:
            if path.stat().st_size > MAX_CONFIG_BYTES:
                raise ValueError("it is too large")
            return check_config(json.loads(path.read_text()), str(path.relative_to(self.path)), self.name)
        except (OSError, ValueError, RecursionError) as error:
            if isinstance(error, ModelError):
                raise
            raise ModelError(
                f"model {self.name!r} has no readable {path.relative_to(self.path)}; give a diffusers folder or hub id"
            ) from error

    def require(self, part: Path, config: Mapping[str, Any], keys: Iterable[str]) -> None:
        """Raises a ModelError if ``config``, the content of a part's ``config.json``, does not say one of the keys."""
        for key in keys:
            if not config.get(key):
                path = (part / "config.json").relative_to(self.path)
                raise ModelError(f"{path} of model {self.name!r} does not say {key!r}; add the key")

    def own_config(self) -> dict[str, Any]:
        """The content of ``diffpath.json``, or an empty dict."""
        path = self.path / OWN_CONFIG
        own = self.read_json(path) if path.is_file() else {}
        for key in own:
            if key not in OWN_KEYS:
                raise ModelError(f"{OWN_CONFIG} of model {self.name!r} has {key!r}; it may have {', '.join(OWN_KEYS)}")
        return own

    def missing_weights(self) -> Iterator[str]:
        """Paths of the pickles that would stand in for safetensors that the folder lacks, for all its parts."""
        for part in filter(None, (self.network, self.part(AUTOENCODERS), self.part(TEXT_ENCODERS))):
            safe, pickled = self._candidates(part)
            if not safe:
                yield str(pickled.relative_to(self.path))

    def _candidates(self, part: Path) -> tuple[list[Path], Path]:
        text = part.name in TEXT_ENCODERS
        patterns = (_TEXT_WEIGHTS,) if text else (WEIGHTS, "diffusion_pytorch_model-*-of-*.safetensors")
        safe = sorted(path for pattern in patterns for path in part.glob(pattern))
        return safe, part / (_TEXT_PICKLED if text else _PICKLED)

    def weights(self, part: Path) -> tuple[list[Path], bool]:
        """The weight files of a part and whether they are safetensors.

        Raises:
            ModelError: if there are none that may be read
        """
        safe, pickled = self._candidates(part)
        if safe:
            return safe, True
        if self.allow_pickle and pickled.is_file():
            return [pickled], False
        expected = (part / (_TEXT_WEIGHTS if part.name in TEXT_ENCODERS else WEIGHTS)).relative_to(self.path)
        raise ModelError(
            f"model {self.name!r} has no {expected}; save it with save_pretrained(safe_serialization=True), "
            f"or pass allow_pickle=True to read tensors from a pickled {pickled.name} whose author you trust"
        )

    def stamp(self) -> tuple[tuple[str, int, int], ...]:
        """What changes when a file of the folder does: a model is loaded again then."""
        files = sorted(path for pattern in ("*", "*/*") for path in self.path.glob(pattern) if path.is_file())
        return tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files)

    def fingerprint(self, given: Mapping[str, Any]) -> str:
        """A hash of configurations, weights and what was given beside them."""
        digest = hashlib.sha256()
        parts = filter(None, (self.network, self.part(AUTOENCODERS), self.part(TEXT_ENCODERS)))
        files = [path for part in parts for path in (part / "config.json", *self.weights(part)[0])]
        for path in (*files, self.scheduler, self.path / OWN_CONFIG):
            if path.is_file():
                with path.open("rb") as file:
                    while block := file.read(1 << 22):
                        digest.update(block)
        if given:
            digest.update(json.dumps(given, sort_keys=True).encode())
        return digest.hexdigest()[:16]


def find_folder(
    model: str | os.PathLike[str], *, revision: str | None = None, allow_pickle: bool = False
) -> ModelFolder:
    """Finds a model's files, and fetches them from the hub if need be.

    Args:
        model: ``"bundled"``, the path of a folder, or a hub id such as
            ``"google/ddpm-cifar10-32"``
        revision: a hub branch, tag or commit; by default the main branch
        allow_pickle: whether to fetch and read pickled weights where there are no
            safetensors

    Returns:
        a :class:`ModelFolder`; of a hub model with the commit

    Raises:
        ModelError: if there is no such model, or if it cannot be fetched
    """
    model = str(model)
    path = _BUNDLED_FOLDER if model == BUNDLED_MODEL else Path(model).expanduser().resolve()
    if path.is_dir():
        if revision is not None:
            raise ModelError(f"model {model!r} is a folder and has no revision; leave revision out")
        return ModelFolder(path, model, allow_pickle=allow_pickle)
    if not _HUB_ID.fullmatch(model):
        raise ModelError(
            f"model {model!r} is neither {BUNDLED_MODEL!r} nor a folder nor a hub id such as 'google/ddpm-cifar10-32'"
        )
    path = _fetch(model, revision, [*_CONFIGS, *_TENSORS])
    folder = ModelFolder(path, model, revision=path.name, allow_pickle=allow_pickle)
    if allow_pickle and (pickled := list(folder.missing_weights())):
        _fetch(model, folder.revision, pickled)
    return folder


def _fetch(model: str, revision: str | None, patterns: list[str]) -> Path:
    """Downloads what of a hub repository matches, or finds it in the cache; the folder is named by its commit."""
    from huggingface_hub import errors, snapshot_download

    at = f" at revision {revision!r}" if revision else ""
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except errors.GatedRepoError as error:
        raise ModelError(
            f"the hub model {model!r} is gated: accept its terms on its page, then log in with `hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(
            f"the hub model {model!r} has no revision {revision!r}; see its page for those it has"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"the hub has no model {model!r}, or it is private; check the id, or log in with `hf auth login`"
        ) from error
    except Exception as error:  # the client, its transport and the disk each raise their own
        if "No space left" in str(error):
            raise ModelError(f"the disk is full: model {model!r} does not fit into the hub's cache") from error
        raise ModelError(
            f"the hub model {model!r}{at} cannot be fetched and is not in the cache; check the network, "
            "or give the path of a folder"
        ) from error


def let_others_read(folder: Path) -> None:
    """Lets those read a saved model's weights who may read its configuration: safetensors makes them private."""
    for weights in folder.rglob("*.safetensors"):
        weights.chmod((weights.parent / "config.json").stat().st_mode)
