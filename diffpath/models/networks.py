"""Networks of diffusers behind one call: ``(inputs, conditioning) -> output``.

What else a network wants beside its inputs is settled here once: a class-conditional one is
given the class that means "none", a text-conditional one the empty prompt.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor

from ..errors import ModelError
from .folder import TEXT_ENCODERS, ModelFolder

_SLACK = 1_000_000  # parameters


@dataclass(frozen=True)
class Network:
    """A network that is ready to be called.

    Attributes:
        module: the ``torch.nn.Module``
        extras: what it is called with beside inputs and conditioning, a dict of tensors
            whose first axis is 1 and is expanded to the batch
        channels: what it denoises
        sample_size: side of what it was trained on
        multiple: it accepts sides that are multiples of this
        width: channels at its full resolution
    """

    module: torch.nn.Module
    extras: Mapping[str, Tensor]
    channels: int
    sample_size: int
    multiple: int
    width: int

    def __call__(self, inputs: Float[Tensor, "n c h w"], conditioning: Num[Tensor, " n"]) -> Float[Tensor, "n out h w"]:
        extras = {name: value.expand(len(inputs), *value.shape[1:]) for name, value in self.extras.items()}
        return self.module(inputs, conditioning, return_dict=False, **extras)[0]


def load_network(folder: ModelFolder, *, class_label: int | None = None) -> Network:
    """Loads the network of a model onto the CPU.

    Args:
        folder: a :class:`diffpath.models.folder.ModelFolder`
        class_label: the class that a class-conditional ``UNet2DModel`` is given

    Returns:
        a :class:`Network`

    Raises:
        ModelError: if its architecture is not supported or a key is missing
    """
    config = folder.read_json(folder.network / "config.json")
    kind = config.get("_class_name")
    if kind not in _LOADERS:
        raise ModelError(
            f"the network of model {folder.name!r} must be one of {', '.join(_LOADERS)}, got {kind}; "
            "choose another model"
        )
    folder.require(folder.network, config, ("in_channels", "sample_size"))
    return _LOADERS[kind](folder, config, class_label)


def load_module(folder: ModelFolder, part: Path, module_class: Any) -> Any:
    """Loads one part of a model: its weights must be exactly those that its configuration asks for."""
    files, safe = folder.weights(part)
    if safe:
        _check_sizes(folder, part, files, module_class)
    try:
        # low_cpu_mem_usage would need the accelerate package
        module, report = module_class.from_pretrained(
            part, use_safetensors=safe, local_files_only=True, low_cpu_mem_usage=False, output_loading_info=True
        )
    except MemoryError as error:
        raise ModelError(f"model {folder.name!r} does not fit into memory; choose a smaller one") from error
    except Exception as error:  # configuration, weights file and unpickler each raise their own
        raise ModelError(
            f"the {module_class.__name__} of model {folder.name!r} cannot be loaded: {_first_words(error)}"
        ) from error
    if missing := report["missing_keys"]:
        raise ModelError(
            f"the weights of model {folder.name!r} lack {len(missing)} parameters of its {module_class.__name__}, such "
            f"as {sorted(missing)[0]!r}; the files are incomplete or of another architecture"
        )
    return module.eval().requires_grad_(False)


def _check_sizes(folder: ModelFolder, part: Path, files: list[Path], module_class: Any) -> None:
    """Compares what a configuration asks for with what its weights' headers say, before either takes any memory."""
    from safetensors import safe_open

    kind = module_class.__name__
    try:
        with torch.device("meta"):
            wanted = module_class.from_config(folder.read_json(part / "config.json")).state_dict()
        found: dict[str, list[int]] = {}
        for path in files:
            with safe_open(str(path), framework="pt") as file:
                found.update({name: file.get_slice(name).get_shape() for name in file.keys()})
    except ModelError:
        raise
    except Exception as error:  # as below
        raise ModelError(f"the {kind} of model {folder.name!r} cannot be loaded: {_first_words(error)}") from error
    for name, shape in found.items():
        if name in wanted and list(wanted[name].shape) != list(shape):
            raise ModelError(
                f"{name!r} of model {folder.name!r} has the shape {tuple(shape)}, its {kind} asks for "
                f"{tuple(wanted[name].shape)}; weights and configuration are not of one model"
            )
    most = sum(tensor.numel() for tensor in wanted.values())
    there = sum(math.prod(shape) for shape in found.values())
    if most > 2 * there + _SLACK:
        raise ModelError(
            f"the {kind} of model {folder.name!r} asks for {most:,} numbers, its weights have {there:,}; weights and "
            "configuration are not of one model"
        )


def set_attention_heads(module: torch.nn.Module, heads: int) -> None:
    """Gives every self-attention of a network the same number of heads, whatever its channels.

    A ``UNet2DModel`` can only say how wide a head is. Weights do not depend on the number.
    """
    from diffusers.models.attention_processor import Attention

    for part in module.modules():
        if isinstance(part, Attention):
            part.heads = heads
            part.scale = (part.to_q.out_features // heads) ** -0.5


def _load_unet(folder: ModelFolder, config: Mapping[str, Any], class_label: int | None) -> Network:
    from diffusers import UNet2DModel

    extras: dict[str, Tensor] = {}
    classes = config.get("num_class_embeds")
    if config.get("class_embed_type") is not None:
        raise ModelError(
            f"model {folder.name!r} is conditioned by class_embed_type {config['class_embed_type']!r}, which diffpath "
            "cannot supply; choose an unconditional model"
        )
    if classes is not None:
        if class_label is None:
            raise ModelError(
                f"model {folder.name!r} is conditioned on {classes} classes and does not say which means 'none'; pass "
                "class_label, the null class that it was trained with, or add it to diffpath.json"
            )
        if not 0 <= class_label < classes:
            raise ModelError(f"class_label must be from 0 to {classes - 1} for {folder.name!r}, got {class_label}")
        extras["class_labels"] = torch.tensor([class_label])
    elif class_label is not None:
        raise ModelError(f"model {folder.name!r} knows no classes; leave class_label out")
    module = load_module(folder, folder.network, UNet2DModel)
    if heads := folder.own_config().get("num_attention_heads"):
        set_attention_heads(module, heads)
    return _convolutional(folder, config, module, extras)


def _load_text_unet(folder: ModelFolder, config: Mapping[str, Any], class_label: int | None) -> Network:
    from diffusers import UNet2DConditionModel

    for key in ("addition_embed_type", "class_embed_type", "time_cond_proj_dim", "encoder_hid_dim"):
        if config.get(key) is not None:
            raise ModelError(
                f"the network of model {folder.name!r} wants more than an empty prompt ({key} = {config[key]!r}), as "
                "SDXL does; choose a model like Stable Diffusion 1 or 2"
            )
    module = load_module(folder, folder.network, UNet2DConditionModel)
    return _convolutional(folder, config, module, {"encoder_hidden_states": _empty_prompt(folder)})


def _load_dit(folder: ModelFolder, config: Mapping[str, Any], class_label: int | None) -> Network:
    from diffusers import DiTTransformer2DModel

    classes = config.get("num_embeds_ada_norm")
    if config.get("norm_type") != "ada_norm_zero" or not classes or not config.get("patch_size"):
        raise ModelError(
            f"the transformer of model {folder.name!r} must be a DiT, with norm_type 'ada_norm_zero', patch_size and "
            "num_embeds_ada_norm; choose another model"
        )
    module = load_module(folder, folder.network, DiTTransformer2DModel)
    # The table of class embeddings has one row more than there are classes, for "none"
    null_class = classes if class_label is None else class_label
    if not 0 <= null_class <= classes:
        raise ModelError(f"class_label must be from 0 to {classes} for {folder.name!r}, got {class_label}")
    return Network(
        module,
        {"class_labels": torch.tensor([null_class])},
        channels=config["in_channels"],
        sample_size=_side(config["sample_size"], folder),
        multiple=config["patch_size"],
        width=config["num_attention_heads"] * config["attention_head_dim"] // config["patch_size"] ** 2,
    )


_LOADERS: dict[str, Callable[[ModelFolder, Mapping[str, Any], int | None], Network]] = {
    "UNet2DModel": _load_unet,
    "UNet2DConditionModel": _load_text_unet,
    "DiTTransformer2DModel": _load_dit,
    "Transformer2DModel": _load_dit,  # what DiT's published configuration calls it
}


def _convolutional(
    folder: ModelFolder, config: Mapping[str, Any], module: torch.nn.Module, extras: Mapping[str, Tensor]
) -> Network:
    return Network(
        module,
        extras,
        channels=config["in_channels"],
        sample_size=_side(config["sample_size"], folder),
        multiple=2 ** (len(config["block_out_channels"]) - 1),
        width=config["block_out_channels"][0],
    )


def _side(sample_size: int | list[int] | tuple[int, ...], folder: ModelFolder) -> int:
    sides = set(sample_size) if isinstance(sample_size, (list, tuple)) else {sample_size}
    if len(sides) > 1:
        raise ModelError(f"sample_size of model {folder.name!r} must be a square, got {sample_size}")
    return sides.pop()


def _empty_prompt(folder: ModelFolder) -> Float[Tensor, "1 tokens channels"]:
    """The text encoder's output for an empty prompt, ``(1, tokens, channels)``."""
    part = folder.part(TEXT_ENCODERS)
    if part is None:
        raise ModelError(f"model {folder.name!r} is conditioned on text but has no text_encoder; give a whole pipeline")
    try:
        from transformers import CLIPTextModel, CLIPTokenizer
    except ImportError as error:
        raise ModelError(
            f"the text encoder of model {folder.name!r} needs transformers; pip install 'diffpath[text]'"
        ) from error
    _, safe = folder.weights(part)
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder.path / "tokenizer", local_files_only=True)
        encoder = CLIPTextModel.from_pretrained(part, use_safetensors=safe, local_files_only=True).eval().float()
        tokens = tokenizer("", padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt")
        with torch.inference_mode():
            return encoder(tokens.input_ids)[0].clone()
    except Exception as error:  # transformers raises nearly anything on damaged files
        raise ModelError(f"the text encoder of model {folder.name!r} cannot be used: {_first_words(error)}") from error


def _first_words(error: BaseException, most: int = 160) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines[0]) <= most else lines[0][:most].rsplit(" ", 1)[0] + " …"
