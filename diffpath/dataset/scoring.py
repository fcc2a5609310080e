"""Scores a FiftyOne dataset or view.

Everything is written chunk by chunk, so that an interrupted run keeps what it finished:
called again with the same arguments, it goes on where it stopped.
"""

import time
from pathlib import Path

import fiftyone as fo

from ..detection.calibration import DEFAULT_LEVEL, DEFAULT_RULE, check_rule
from ..options import complete_options
from .appearance import color_maps
from .embeddings import read_embeddings
from .heartbeat import beating, is_alive
from .inventory import delete_diffpath
from .maps import check_scales, run_folder
from .record import COMPLETE, DiffPathRun, check_free, new_config, read_config, reference_file, write_config
from .scanning import Scanner, show_progress
from .schema import create_fields
from .scores import judge
from .sources import check_images, resolve_reference, serialize
from .stores import FieldStore, ReferenceArchive
from .thresholds import apply_threshold


def compute_diffpath(
    samples,
    *,
    reference=None,
    model="bundled",
    embeddings=None,
    groups=None,
    run_key="diffpath",
    rule=DEFAULT_RULE,
    level=DEFAULT_LEVEL,
    tag=None,
    heatmaps=True,
    batch_size=None,
    num_workers=4,
    device=None,
    dtype=None,
    model_options=None,
    overwrite=False,
    progress=None,
    **options,
):
    """Scores images by how little they look like a reference, and stores the result.

    For run key K the fields ``K_score`` (higher = more anomalous), ``K_p_value``,
    ``K_is_ood``, ``K_explanation``, ``K_features``, ``K_profile``, ``K_statistics``,
    ``K_heatmap``, ``K_error_map`` and ``K_error`` are added, with saved views that rank and filter by them.
    With ``zoom``, what the larger view adds to the descriptor is in ``K_zoomed``.
    With ``embeddings``, ``K_score`` is the fused score, by which everything ranks and
    flags, and its parts are in ``K_diffusion_score`` and ``K_embedding_score``. A run that
    was interrupted goes on when it is called again with the same arguments.

    Args:
        samples: a ``fo.Dataset`` or ``fo.DatasetView`` of images
        reference: what is normal: a view, a dataset, the name of a sample tag in the
            dataset, a :class:`diffpath.Reference` or the ``Path`` of a saved one, or
            None. With None, and for reference images that are among ``samples``, each
            image is scored by a fit that did not see it; with None the fit is a Gaussian
            that also leaves out the most deviant 30 %, and p-values are approximate
        model: ``"bundled"``, the path of a diffusers folder, or a hub id such as
            ``"google/ddpm-cifar10-32"``, which the run pins to its commit
        embeddings: a field with one vector per sample, of any other network, in
            ``samples`` and in the samples of the reference: how far the vector lies from its
            nearest neighbours in the reference then counts beside the diffusion model's
            evidence. An image without one gets no score, and ``K_error`` says so. All
            vectors are held in memory
        groups: a field of the reference's samples, equal for those that belong together,
            such as ``"video"``, ``"patient"`` or ``"picture"``: none is then judged by a fit
            that saw another of its group. Without it such images vouch for each other, and
            far more images of **new** groups are flagged than the level says
        run_key: an identifier; prefix of fields and views
        rule: how images are chosen as likely out-of-distribution, as in
            :func:`set_diffpath_threshold`, which changes it later
        level: the rule's number; by default 5 % of images like the reference's
        tag: a sample tag for the likely out-of-distribution images
        heatmaps: whether to write maps of 1 − SSIM and of the size of the score error: two
            small files per image
        batch_size: images per forward pass; None for a default by device
        num_workers: threads that decode images
        device: a torch device; by default CUDA, then MPS, then the CPU. Several, as a list
            or separated by commas, share the images
        dtype: the network's autocast type; by default the fastest that the device computes well
        model_options: further arguments of :func:`diffpath.load_model`, such as
            ``{"prediction_type": "epsilon"}``
        overwrite: whether to delete an existing run of the same key first
        progress: whether to show a progress bar, a function of a FiftyOne progress bar,
            or None for FiftyOne's default
        **options: the fields of :class:`diffpath.MethodOptions`, such as
            ``preset="paper"`` or ``num_timesteps=5``

    Returns:
        a :class:`DiffPathRun`

    Raises:
        ValueError: if an argument is not valid, names are taken, or fewer than 3
            reference images can be read
    """
    steps = iterate_diffpath(
        samples,
        reference=reference,
        model=model,
        embeddings=embeddings,
        groups=groups,
        run_key=run_key,
        rule=rule,
        level=level,
        tag=tag,
        heatmaps=heatmaps,
        batch_size=batch_size,
        num_workers=num_workers,
        device=device,
        dtype=dtype,
        model_options=model_options,
        overwrite=overwrite,
        **options,
    )
    return show_progress(steps, progress)


def iterate_diffpath(
    samples,
    *,
    reference=None,
    model="bundled",
    embeddings=None,
    groups=None,
    run_key="diffpath",
    rule=DEFAULT_RULE,
    level=DEFAULT_LEVEL,
    tag=None,
    heatmaps=True,
    batch_size=None,
    num_workers=4,
    device=None,
    dtype=None,
    model_options=None,
    overwrite=False,
    **options,
):
    """:func:`compute_diffpath` as a generator of :class:`Progress` that returns the run."""
    from ..method.diffpath_v2 import DiffPathV2  # brings torch, which takes seconds to import

    started = time.monotonic()
    check_rule(rule, level)
    dataset = check_samples(samples, run_key)
    source = resolve_reference(dataset, samples, reference, groups)
    method = DiffPathV2(model, device=device, dtype=dtype, model_options=model_options, **options)
    set_batch_size(method, batch_size)
    vectors = read_embeddings(samples, embeddings, source)
    made_by = {**method.provenance, **vectors.made_by}
    source.check(method, made_by, num_workers)

    # Read first: a view over the scores of a run that is overwritten is empty afterwards
    target = dict(zip(*samples.values(["id", "filepath"])))
    asked = {"samples": serialize(samples), "rule": rule, "level": level, "tag": tag}
    config = _begin(dataset, run_key, {**made_by, "reference": source.description}, heatmaps, asked, overwrite)
    source.keep(reference_file(config))
    store = FieldStore(dataset, config, target)
    archive = ReferenceArchive(Path(config["folder"]))

    pending = {i: path for i, path in target.items() if i not in store.descriptors}
    outside = {i: path for i, path in source.paths.items() if i not in target and i not in archive.descriptors}

    scanner = Scanner(method, num_workers, total=len(pending) + len(outside))
    yield from beating(_scan(scanner, pending, store, outside, archive), dataset, run_key, config)

    vectors.note_problems(dataset, config, store.descriptors)
    described = vectors.join(store.descriptors)
    fitted, reference_ids = source.fit(vectors.join({**archive.descriptors, **store.descriptors}), made_by)
    config.update(judge(dataset, config, described, fitted, reference_ids))
    config.update(num_unreadable=len(target) - len(described))
    config.update(apply_threshold(dataset, config, rule, level, tag=tag))
    config.update(
        status=COMPLETE,
        seconds=time.monotonic() - started,
        images_per_second=scanner.rate,
        device=", ".join(str(predictor.device) for predictor in method.predictors),
    )
    write_config(dataset, run_key, config)
    return DiffPathRun.load(dataset, run_key)


def _scan(scanner, pending, store, outside, archive):
    yield scanner.progress("Scoring images")
    yield from scanner.run(pending, store, "Scoring images")
    yield from scanner.run(outside, archive, "Reading the reference")


def set_batch_size(method, batch_size):
    """Lets this many images enter one forward pass; None leaves the default."""
    if batch_size is not None:
        method.images_per_pass = batch_size


def check_samples(samples, run_key):
    """The dataset of samples that can be scored."""
    if not isinstance(samples, fo.core.collections.SampleCollection):
        raise ValueError(f"samples must be a FiftyOne dataset or view, got {type(samples).__name__}")
    dataset = samples._root_dataset
    if not run_key.isidentifier():
        raise ValueError(f"run_key must be letters, digits and underscores, got {run_key!r}")
    check_images(samples)
    return dataset


def _begin(dataset, run_key, made_by, heatmaps, asked, overwrite):
    """Registers a new run, or takes up an interrupted one that the same arguments began."""
    config = read_config(dataset, run_key)
    if config is not None and not overwrite:
        if config["status"] == COMPLETE:
            raise ValueError(
                f"dataset {dataset.name!r} already has a run {run_key!r}; pass overwrite=True to replace it, "
                "or another run_key"
            )
        if is_alive(config):
            raise ValueError(
                f"run {run_key!r} is being computed now, {config['alive']['done']:,} of {config['alive']['total']:,} "
                "images are done; wait for it, or pass overwrite=True to start again"
            )
        begun = {**config["made_by"], "options": complete_options(config["made_by"]["options"])}
        if begun == made_by and config["heatmaps"] == heatmaps:
            check_scales(config)
            return config
        raise ValueError(
            f"run {run_key!r} was interrupted and had other options; call it with the same ones to go on, "
            "or pass overwrite=True to start again"
        )
    if config is not None:
        delete_diffpath(dataset, run_key)
    config = new_config(run_key, made_by=made_by, heatmaps=heatmaps, folder=run_folder(dataset, run_key))
    config["asked"] = asked
    check_free(dataset, run_key, config)
    write_config(dataset, run_key, config)
    create_fields(dataset, config["fields"])
    if heatmaps:
        config["made_color_scheme"] = color_maps(dataset, config["fields"])
        write_config(dataset, run_key, config)
    return config
