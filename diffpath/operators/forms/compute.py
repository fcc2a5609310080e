"""The operator's form: small functions that add inputs, and one that reads them back."""

from dataclasses import fields as fields_of
from pathlib import Path

import fiftyone.operators.types as types

from ...dataset.embeddings import embedding_fields
from ...dataset.groups import group_fields
from ...dataset.inventory import DAMAGED, INTERRUPTED, RUNNING, run_status
from ...dataset.record import COMPLETE, find_record, read_records
from ...dataset.run import DiffPathRun
from ...detection.rules import DEFAULT_LEVEL, DEFAULT_RULE, check_rule
from ...models.cards import MODEL_CARDS, find_card
from ...options import (
    ERROR_POWER_NAMES,
    PREDICTION_TYPES,
    PRESETS,
    MethodOptions,
    ModelOptions,
    evaluations_per_image,
)
from .run import runs_by_status

# Form defaults do not reach callers from Python, so that this table serves both
DEFAULTS = {"run_key": "diffpath", "model": "bundled", "heatmaps": True, "num_workers": 4}
REFERENCE_CHOICES = {
    "self": "The target itself: find what differs from the rest",
    "tag": "Samples with a tag",
    "view": "A saved view of this dataset",
    "dataset": "Another dataset",
    "run": "The reference of an earlier run on this dataset",
    "file": "A saved reference",
}
_FITTED_BEFORE = ("run", "file")
RULE_CHOICES = {
    "false_positive_rate": (
        "False-positive rate",
        "Share of images like the reference's that is flagged, such as 0.05",
    ),
    "false_discovery_rate": ("False-discovery rate", "Share of the flagged that is expected to be false, such as 0.1"),
    "percentile": ("Percentile", "Flag from this percentile of the scores, such as 95"),
    "count": ("Count", "Flag this many images"),
    "score": ("Score", "Flag from this score"),
}
_LEVEL_DEFAULTS = {"false_positive_rate": DEFAULT_LEVEL, "false_discovery_rate": 0.1, "percentile": 95, "count": 100}
_EXISTING = {
    COMPLETE: ("exists", "Choose another run key to keep it."),
    RUNNING: ("is being computed now", "Wait for it, or choose another run key."),
    INTERRUPTED: ("was interrupted", "Leave this off to go on where it stopped, with the same options as before."),
    DAMAGED: ("has lost fields", "What is left of it is of no use."),
}
_METHOD_OPTIONS = tuple(field.name for field in fields_of(MethodOptions))
_MODEL_OPTIONS = tuple(field.name for field in fields_of(ModelOptions))
_COSTLY = ("num_timesteps", "num_noise_draws", "zoom")
_TIMESTEP_ENDS = ("first_timestep", "last_timestep")
_WEIGHTING = {"yes": True, "no": False}  # not a switch: an untouched switch would override the preset
_EVALUATIONS_PER_SECOND = 200  # of the bundled model on two CPU cores, until a run has been timed here


def build_form(ctx):
    """The whole form, as a ``types.Object``."""
    inputs = types.Object()
    inputs.view_target(ctx, require_flat=True)
    _add_reference(ctx, inputs)
    _add_groups(ctx, inputs)
    _add_embeddings(ctx, inputs)
    _add_model(ctx, inputs)
    _add_run_key(ctx, inputs)
    add_rule(ctx, inputs)
    inputs.bool(
        "heatmaps",
        default=True,
        label="Heatmaps",
        description="Show where each image differs from what the model expects: by structure, and by the size of the "
        "model's error",
    )
    inputs.bool(
        "advanced", default=False, label="Advanced", description="Show the method's options", view=types.SwitchView()
    )
    if ctx.params.get("advanced"):
        _add_advanced(ctx, inputs)
        if ctx.params.get("model", DEFAULTS["model"]) != DEFAULTS["model"]:
            _add_model_options(inputs)
    _add_estimate(ctx, inputs)
    return inputs


def read_form(ctx):
    """The form's values as arguments of ``compute_diffpath``; empty inputs are left to its defaults.

    Raises:
        ValueError: if the reference is not complete
    """
    params = {key: value for key, value in ctx.params.items() if value not in (None, "")}
    arguments = {name: params.get(name, default) for name, default in DEFAULTS.items()}
    arguments["rule"], arguments["level"] = read_rule(params)
    optional = ("embeddings", "batch_size", "device", "dtype", "overwrite", "tag")
    arguments.update({name: params[name] for name in optional if name in params})
    arguments.update({name: params[name] for name in _METHOD_OPTIONS if name in params})
    if any(name in params for name in _TIMESTEP_ENDS):
        ends = zip(_TIMESTEP_ENDS, MethodOptions.timestep_range)
        arguments["timestep_range"] = tuple(params.get(name, default) for name, default in ends)
    if params.get("ssim_weighting") in _WEIGHTING:
        arguments["ssim_weighting"] = _WEIGHTING[params["ssim_weighting"]]
    model_options = {**params.get("model_options", {}), **{n: params[n] for n in _MODEL_OPTIONS if n in params}}
    if chosen := {name: value for name, value in model_options.items() if value is not False}:
        arguments["model_options"] = chosen
    arguments["reference"] = _read_reference(ctx, params)
    if "groups" in params and _reference_kind(params) not in _FITTED_BEFORE:  # an input that is hidden keeps its value
        arguments["groups"] = params["groups"]
    return arguments


def _reference_kind(params):
    return params.get("reference_kind", "self")


def _read_reference(ctx, params):
    import fiftyone as fo

    kind = _reference_kind(params)
    if kind == "self":
        return None
    if kind not in REFERENCE_CHOICES:
        raise ValueError(f"reference_kind must be one of {', '.join(REFERENCE_CHOICES)}, got {kind!r}")
    value = params.get(f"reference_{kind}")
    if value is None:
        raise ValueError(f"choose the {kind} that holds the reference images")
    loaders = {
        "tag": str,
        "view": ctx.dataset.load_saved_view,
        "dataset": fo.load_dataset,
        "run": lambda run_key: Path(DiffPathRun.load(ctx.dataset, run_key).reference_path),
        "file": Path,
    }
    return loaders[kind](value)


def _add_reference(ctx, inputs):
    kinds = types.RadioGroup()
    for value, label in REFERENCE_CHOICES.items():
        kinds.add_choice(value, label=label)
    inputs.enum(
        "reference_kind",
        kinds.values(),
        default="self",
        view=kinds,
        label="Reference",
        description="Which images are normal",
    )
    kind = _reference_kind(ctx.params)
    if kind == "tag":
        add_choice(inputs, "reference_tag", ctx.dataset.distinct("tags"), "Tag", "the dataset has no sample tags")
    elif kind == "view":
        add_choice(inputs, "reference_view", ctx.dataset.list_saved_views(), "View", "the dataset has no saved views")
    elif kind == "dataset":
        import fiftyone as fo

        others = [name for name in fo.list_datasets() if name != ctx.dataset.name]
        add_choice(inputs, "reference_dataset", others, "Dataset", "there is no other dataset")
    elif kind == "run":
        add_choice(inputs, "reference_run", list(runs_by_status(ctx.dataset)), "Run", "the dataset has no finished run")
    elif kind == "file":
        inputs.str(
            "reference_file",
            required=True,
            label="File",
            description="A reference.safetensors on the machine that runs FiftyOne",
        )


def _add_groups(ctx, inputs):
    """A choice among the fields of a reference that is fitted now by which its images may belong together."""
    kind = _reference_kind(ctx.params)
    if kind in _FITTED_BEFORE:
        return
    samples = ctx.dataset
    if kind == "dataset":
        import fiftyone as fo

        name = ctx.params.get("reference_dataset")
        if not name or not fo.dataset_exists(name):
            return
        samples = fo.load_dataset(name)
    _add_field(
        inputs,
        "groups",
        _without_those_of_runs(group_fields(samples), samples),
        ctx.params.get("groups"),
        label="Groups",
        description="A field by which reference images belong together, such as the video that frames are of: those "
        "of one group do not vouch for each other; empty to leave out",
        otherwise="is no field of single values",
    )


def _add_embeddings(ctx, inputs):
    """A choice among the dataset's fields of vectors, where there are any that no run of ours made."""
    _add_field(
        inputs,
        "embeddings",
        _without_those_of_runs(embedding_fields(ctx.dataset), ctx.dataset),
        ctx.params.get("embeddings"),
        label="Embeddings",
        description="A field of vectors whose nearest neighbours in the reference count as well; empty to leave out",
        otherwise="is no field of vectors",
    )


def _add_field(inputs, name, fields, chosen, *, label, description, otherwise):
    """An optional choice among fields, where there are any."""
    if not fields:
        return
    prop = inputs.enum(name, fields, default=None, label=label, view=_suggestions(fields), description=description)
    if chosen and chosen not in fields:
        prop.invalid, prop.error_message = True, f"{chosen!r} {otherwise}; choose one, or leave this empty"


def _without_those_of_runs(fields, dataset):
    """The fields that no run of ours made."""
    ours = {name for record in read_records(dataset).values() for name in record.fields.values()}
    return [name for name in fields if name not in ours]


def add_rule(ctx, inputs):
    """Inputs for the rule by which images are flagged, its number and a tag."""
    choices = types.DropdownView()
    for value, (label, description) in RULE_CHOICES.items():
        choices.add_choice(value, label=label, description=description)
    inputs.enum(
        "rule", choices.values(), default=DEFAULT_RULE, label="Flag by", view=choices, description="What is likely OOD"
    )
    rule, level = read_rule(ctx.params)
    description = RULE_CHOICES[rule][1] if rule in RULE_CHOICES else ""
    # One input per rule, as an input keeps what was typed when the rule changes
    prop = inputs.float(f"level_{rule}", default=_LEVEL_DEFAULTS.get(rule), label="Level", description=description)
    try:
        check_rule(rule, level)
    except ValueError as error:
        prop.invalid, prop.error_message = True, str(error)
    inputs.str(
        "tag",
        default=None,
        label="Tag the flagged",
        description="Give the flagged images this sample tag; empty for none",
    )


def read_rule(params):
    """Rule and level of a form's parameters, or of a caller's ``rule`` and ``level``."""
    rule = params.get("rule") or DEFAULT_RULE
    level = params.get(f"level_{rule}", params.get("level"))
    return rule, _LEVEL_DEFAULTS.get(rule) if level in (None, "") else level


def add_choice(inputs, name, values, label, missing):
    """A required choice among values; where there are none, ``missing`` says so."""
    choices = _suggestions(values)
    prop = inputs.enum(name, choices.values(), required=True, label=label, view=choices)
    if not values:
        prop.invalid = True
        prop.error_message = f"{missing}; choose another kind of reference"


def _suggestions(values):
    choices = types.AutocompleteView()
    for value in values:
        choices.add_choice(value, label=value)
    return choices


def _add_model(ctx, inputs):
    choices = types.AutocompleteView()
    for card in MODEL_CARDS:
        choices.add_choice(card.id, label=card.id, description=card.facts())
    # Not an enum, whose values would be all that is allowed
    inputs.str(
        "model",
        default=DEFAULTS["model"],
        view=choices,
        label="Model",
        description="One of these, any other hub id, or the path of a diffusers folder on FiftyOne's machine",
    )
    card = find_card(ctx.params.get("model", DEFAULTS["model"]))
    if card and card.id != DEFAULTS["model"]:
        inputs.view(
            "model_card",
            types.Notice(
                label=card.facts(),
                description="It is downloaded when it is first used. Facts are from its page and paper; we have not "
                "run it.",
            ),
        )


def _add_model_options(inputs):
    inputs.str("revision", default=None, label="Revision", description="Hub branch, tag or commit; empty for main")
    inputs.enum(
        "prediction_type",
        list(PREDICTION_TYPES),
        default=None,
        label="Prediction type",
        description="Only for a model whose scheduler does not say it",
    )
    inputs.float(
        "latent_scaling",
        default=None,
        label="Latent scaling",
        description="Only for an autoencoder that does not say its scaling_factor",
    )
    inputs.int("class_label", default=None, min=0, label="Null class", description="Only for a class-conditional U-Net")
    inputs.bool(
        "allow_pickle",
        default=False,
        label="Allow pickled weights",
        description="Read tensors from a .bin file where there are no safetensors",
    )
    inputs.bool("compile", default=False, label="Compile", description="Minutes at first, then faster; for large runs")


def _add_run_key(ctx, inputs):
    run_key = ctx.params.get("run_key", DEFAULTS["run_key"])
    prop = inputs.str(
        "run_key",
        default=DEFAULTS["run_key"],
        label="Run key",
        description="Prefix of the run's fields and saved views",
    )
    if not str(run_key).isidentifier():
        prop.invalid = True
        prop.error_message = "use letters, digits and underscores, and begin with a letter"
        return
    try:
        record = find_record(ctx.dataset, run_key)
    except ValueError as error:
        prop.invalid = True
        prop.error_message = str(error)
        return
    if record is None:
        return
    status = run_status(ctx.dataset, record)
    what, otherwise = _EXISTING[status]
    inputs.view(
        "existing_run",
        types.Warning(
            label=f"Run {run_key!r} {what}",
            description=f"Overwriting deletes its fields, views and heatmaps. {otherwise}",
        ),
    )
    overwrite = inputs.bool("overwrite", default=False, label="Overwrite")
    if status != INTERRUPTED and not ctx.params.get("overwrite"):
        overwrite.invalid = True
        overwrite.error_message = "tick this to replace the run, or choose another run key"


def _add_advanced(ctx, inputs):
    preset = ctx.params.get("preset", "default")
    chosen = MethodOptions.from_preset(preset if preset in PRESETS else "default")
    inputs.enum(
        "preset",
        list(PRESETS),
        default="default",
        label="Preset",
        description="'paper' weights squared errors by 1 - SSIM as published; 'default' measured better",
    )
    inputs.int(
        "num_timesteps", default=chosen.num_timesteps, min=2, label="Timesteps", description="Time grows with it"
    )
    for name, default in zip(_TIMESTEP_ENDS, chosen.timestep_range):
        inputs.float(
            name,
            default=default,
            min=0,
            max=1,
            label=name.replace("_", " ").capitalize(),
            description="As a fraction of the schedule",
        )
    inputs.int(
        "num_noise_draws", default=chosen.num_noise_draws, min=1, label="Noise draws", description="Time grows with it"
    )
    inputs.enum(
        "error_power",
        list(ERROR_POWER_NAMES),
        default=None,
        label="Error power",
        description=f"The preset's is {chosen.error_power!r}",
    )
    inputs.enum(
        "ssim_weighting",
        list(_WEIGHTING),
        default=None,
        label="Weight errors by 1 - SSIM",
        description=f"The preset's is {'yes' if chosen.ssim_weighting else 'no'!r}",
    )
    inputs.int("ssim_window", default=chosen.ssim_window, min=3, label="SSIM window", description="In pixels, odd")
    inputs.float(
        "ssim_sigma",
        default=None,
        min=0,
        label="SSIM sigma",
        description="Of a Gaussian window, in pixels; empty for the preset's",
    )
    inputs.int("seed", default=chosen.seed, label="Seed", description="Of the noise")
    inputs.int(
        "resolution", default=None, min=8, label="Resolution", description="In pixels; empty for the model's own"
    )
    inputs.int(
        "tile",
        default=None,
        min=8,
        label="Tile",
        description="Side in pixels of the tiles in which a larger resolution is seen; empty for whole images",
    )
    inputs.int(
        "zoom",
        default=1,
        min=1,
        label="Zoom",
        description="From 2 on, also see each image that many times larger, in tiles: finds what is lost when a large "
        "image is made small, in 1 + zoom² times the time",
    )
    inputs.int(
        "equalise_resampling",
        default=None,
        min=1,
        label="Equalise resampling",
        description="Bring every image to this side first, so that earlier resizing does not count; empty to leave out",
    )
    inputs.int(
        "batch_size",
        default=None,
        min=1,
        label="Batch size",
        description="Images per forward pass; empty to choose by device",
    )
    inputs.int("num_workers", default=DEFAULTS["num_workers"], min=1, label="Decoding threads")
    inputs.str("device", default=None, label="Device", description="Such as cuda:1, cpu, or cuda:0, cuda:1 to share")


def _add_estimate(ctx, inputs):
    try:
        samples = ctx.target_view(require_flat=True)
        count = len(samples)
    except Exception:  # a form must open on any view; the run itself says what is wrong
        return
    if not count:
        inputs.view("estimate", types.Warning(label="There are no images in this view"))
        return
    evaluations = evaluations_per_image(*(ctx.params.get(name) or getattr(MethodOptions, name) for name in _COSTLY))
    model = ctx.params.get("model", DEFAULTS["model"])
    measured = _measured_evaluations_per_second(ctx.dataset, model)
    if not measured and model != DEFAULTS["model"]:
        inputs.view("estimate", types.Notice(label=f"{count:,} images; {model} has not been timed here yet"))
        return
    seconds = count * evaluations / (measured or _EVALUATIONS_PER_SECOND)
    basis = "from the speed of an earlier run" if measured else "a rough guess until a run has been timed here"
    inputs.view(
        "estimate",
        types.Notice(
            label=f"{count:,} images, about {format_duration(seconds)} ({basis}); an outside reference adds to it"
        ),
    )


def _measured_evaluations_per_second(dataset, model):
    for record in reversed(read_records(dataset).values()):
        if record.status == COMPLETE and record.provenance["model"] == model and record.images_per_second:
            return record.images_per_second * evaluations_per_image(*(getattr(record.options, n) for n in _COSTLY))
    return None


def format_duration(seconds):
    """A duration as people say it: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
