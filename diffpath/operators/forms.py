"""The operator's form: small functions that add inputs, and one that reads them back."""

from dataclasses import fields

import fiftyone.operators.types as types

from ..dataset.runs import COMPLETE, METHOD, read_config
from ..options import ERROR_POWER_NAMES, PRESETS, MethodOptions

# Form defaults do not reach callers from Python, so that this table serves both
DEFAULTS = {"run_key": "diffpath", "model": "bundled", "heatmaps": True, "num_workers": 4}
REFERENCE_CHOICES = {
    "self": "The target itself: find what differs from the rest",
    "tag": "Samples with a tag",
    "view": "A saved view of this dataset",
    "dataset": "Another dataset",
}
_METHOD_OPTIONS = tuple(field.name for field in fields(MethodOptions))
_TIMESTEP_ENDS = ("first_timestep", "last_timestep")
_WEIGHTING = {"yes": True, "no": False}  # not a switch: an untouched switch would override the preset
_EVALUATIONS_PER_SECOND = 200  # of the bundled model on two CPU cores, until a run has been timed here


def build_form(ctx):
    """The whole form, as a ``types.Object``."""
    inputs = types.Object()
    inputs.view_target(ctx, require_flat=True)
    _add_reference(ctx, inputs)
    _add_model(inputs)
    _add_run_key(ctx, inputs)
    inputs.bool(
        "heatmaps",
        default=True,
        label="Heatmaps",
        description="Show where each image differs from what the model expects",
    )
    inputs.bool(
        "advanced", default=False, label="Advanced", description="Show the method's options", view=types.SwitchView()
    )
    if ctx.params.get("advanced"):
        _add_advanced(ctx, inputs)
    _add_estimate(ctx, inputs)
    return inputs


def read_form(ctx):
    """The form's values as arguments of ``compute_diffpath``; empty inputs are left to its defaults.

    Raises:
        ValueError: if the reference is not complete
    """
    params = {key: value for key, value in ctx.params.items() if value not in (None, "")}
    arguments = {name: params.get(name, default) for name, default in DEFAULTS.items()}
    arguments.update({name: params[name] for name in ("batch_size", "device", "dtype", "overwrite") if name in params})
    arguments.update({name: params[name] for name in _METHOD_OPTIONS if name in params})
    if any(name in params for name in _TIMESTEP_ENDS):
        ends = zip(_TIMESTEP_ENDS, MethodOptions.timestep_range)
        arguments["timestep_range"] = tuple(params.get(name, default) for name, default in ends)
    if params.get("ssim_weighting") in _WEIGHTING:
        arguments["ssim_weighting"] = _WEIGHTING[params["ssim_weighting"]]
    arguments["reference"] = _read_reference(ctx, params)
    return arguments


def _read_reference(ctx, params):
    import fiftyone as fo

    kind = params.get("reference_kind", "self")
    if kind == "self":
        return None
    if kind not in REFERENCE_CHOICES:
        raise ValueError(f"reference_kind must be one of {', '.join(REFERENCE_CHOICES)}, got {kind!r}")
    value = params.get(f"reference_{kind}")
    if value is None:
        raise ValueError(f"choose the {kind} that holds the reference images")
    if kind == "tag":
        return value
    return ctx.dataset.load_saved_view(value) if kind == "view" else fo.load_dataset(value)


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
    kind = ctx.params.get("reference_kind", "self")
    if kind == "tag":
        _add_choice(inputs, "reference_tag", ctx.dataset.distinct("tags"), "Tag", "the dataset has no sample tags")
    elif kind == "view":
        _add_choice(inputs, "reference_view", ctx.dataset.list_saved_views(), "View", "the dataset has no saved views")
    elif kind == "dataset":
        import fiftyone as fo

        others = [name for name in fo.list_datasets() if name != ctx.dataset.name]
        _add_choice(inputs, "reference_dataset", others, "Dataset", "there is no other dataset")


def _add_choice(inputs, name, values, label, missing):
    choices = types.AutocompleteView()
    for value in values:
        choices.add_choice(value, label=value)
    prop = inputs.enum(name, choices.values(), required=True, label=label, view=choices)
    if not values:
        prop.invalid = True
        prop.error_message = f"{missing}; choose another kind of reference"


def _add_model(inputs):
    inputs.str(
        "model",
        default=DEFAULTS["model"],
        label="Model",
        description="'bundled', or the path of a diffusers model folder on the machine that runs FiftyOne",
    )


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
        config = read_config(ctx.dataset, run_key)
    except ValueError as error:
        prop.invalid = True
        prop.error_message = str(error)
        return
    if config is None:
        return
    finished = config["status"] == COMPLETE
    what = "exists" if finished else "was interrupted"
    otherwise = "Choose another run key to keep it." if finished else "Leave this off to go on where it stopped."
    inputs.view(
        "existing_run",
        types.Warning(
            label=f"Run {run_key!r} {what}",
            description=f"Overwriting deletes its fields, views and heatmaps. {otherwise}",
        ),
    )
    overwrite = inputs.bool("overwrite", default=False, label="Overwrite")
    if finished and not ctx.params.get("overwrite"):
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
        "batch_size",
        default=None,
        min=1,
        label="Batch size",
        description="Images per forward pass; empty to choose by device",
    )
    inputs.int("num_workers", default=DEFAULTS["num_workers"], min=1, label="Decoding threads")
    inputs.str("device", default=None, label="Device", description="Such as cuda:1 or cpu; empty for the best one")


def _add_estimate(ctx, inputs):
    try:
        samples = ctx.target_view(require_flat=True)
        count = len(samples)
    except Exception:  # a form must open on any view; the run itself says what is wrong
        return
    if not count:
        inputs.view("estimate", types.Warning(label="There are no images in this view"))
        return
    evaluations = ctx.params.get("num_timesteps") or MethodOptions.num_timesteps
    evaluations *= ctx.params.get("num_noise_draws") or MethodOptions.num_noise_draws
    measured = _measured_evaluations_per_second(ctx.dataset, ctx.params.get("model", DEFAULTS["model"]))
    seconds = count * evaluations / (measured or _EVALUATIONS_PER_SECOND)
    basis = "from the speed of an earlier run" if measured else "a rough guess until a run has been timed here"
    inputs.view(
        "estimate",
        types.Notice(
            label=f"{count:,} images, about {format_duration(seconds)} ({basis}); an outside reference adds to it"
        ),
    )


def _measured_evaluations_per_second(dataset, model):
    for run_key in reversed(dataset.list_runs(method=METHOD)):
        config = dataset.get_run_info(run_key).config.serialize()
        if config.get("status") == COMPLETE and config["made_by"]["model"] == model and config.get("images_per_second"):
            options = config["made_by"]["options"]
            return config["images_per_second"] * options["num_timesteps"] * options["num_noise_draws"]
    return None


def format_duration(seconds):
    """A duration as people say it: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
