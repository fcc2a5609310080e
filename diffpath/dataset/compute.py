"""Scores a FiftyOne dataset or view.

Everything is written chunk by chunk, so that an interrupted run keeps what it finished:
called again with the same arguments, it goes on where it stopped.
"""

import time
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import fiftyone as fo
import numpy as np

from ..options import MIN_REFERENCE_SIZE
from .appearance import color_heatmaps
from .manage import delete_diffpath
from .maps import run_folder
from .reading import read_images
from .runs import COMPLETE, DiffPathRun, check_free, new_config, read_config, write_config
from .schema import create_fields, describe_threshold, save_views
from .stores import FieldStore, ReferenceArchive

# Contaminants form kernels of their own in a kernel density; one robust Gaussian hides them less
SELF_REFERENCE = dict(density="mahalanobis", trim=0.3)
_FLUSH_IMAGES = 512
_FLUSH_SECONDS = 5.0


@dataclass(frozen=True)
class Progress:
    """How far a run is: ``done`` of ``total`` images, at ``rate`` images per second."""

    label: str
    done: int
    total: int
    rate: float

    @property
    def fraction(self):
        return self.done / max(self.total, 1)

    @property
    def seconds_left(self):
        return (self.total - self.done) / self.rate if self.rate else None


def compute_diffpath(
    samples,
    *,
    reference=None,
    model="bundled",
    run_key="diffpath",
    heatmaps=True,
    batch_size=None,
    num_workers=4,
    device=None,
    dtype=None,
    overwrite=False,
    progress=None,
    **options,
):
    """Scores images by how little they look like a reference, and stores the result.

    For run key K the fields ``K_score`` (higher = more anomalous), ``K_features``,
    ``K_profile``, ``K_statistics``, ``K_heatmap`` and ``K_error`` are added, with saved views that rank and
    filter by them. A run that was interrupted goes on when it is called again with the
    same arguments.

    Args:
        samples: a ``fo.Dataset`` or ``fo.DatasetView`` of images
        reference: what is normal: a view, a dataset, the name of a sample tag in the
            dataset, or None. With None, and for reference images that are among
            ``samples``, each image is scored by a fit that did not see it; with None the
            fit is a robust Gaussian that also leaves out the most deviant 30 %
        model: ``"bundled"`` or the path of a diffusers folder
        run_key: an identifier; prefix of fields and views
        heatmaps: whether to write 1 − SSIM maps
        batch_size: images per forward pass; None for a default by device
        num_workers: threads that decode images
        device: a torch device; by default CUDA, then MPS, then the CPU
        dtype: the network's autocast type; by default the fastest that the device computes well
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
        run_key=run_key,
        heatmaps=heatmaps,
        batch_size=batch_size,
        num_workers=num_workers,
        device=device,
        dtype=dtype,
        overwrite=overwrite,
        **options,
    )
    with closing(steps):
        first = next(steps)
        with fo.ProgressBar(total=first.total, progress=progress, iters_str="images") as bar:
            return drain(steps, lambda step: bar.set_iteration(step.done))


def drain(steps, show):
    """Runs a generator to its end, shows each step, and returns what the generator returns."""
    while True:
        try:
            step = next(steps)
        except StopIteration as finished:
            return finished.value
        show(step)


def iterate_diffpath(
    samples,
    *,
    reference=None,
    model="bundled",
    run_key="diffpath",
    heatmaps=True,
    batch_size=None,
    num_workers=4,
    device=None,
    dtype=None,
    overwrite=False,
    **options,
):
    """:func:`compute_diffpath` as a generator of :class:`Progress` that returns the run."""
    from ..method import DiffPathV2  # brings torch, which takes seconds to import

    started = time.monotonic()
    dataset = _check_samples(samples, run_key)
    reference_samples = _resolve_reference(dataset, samples, reference)
    method = DiffPathV2(model, device=device, dtype=dtype, **options)
    if batch_size is not None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        method.max_evaluations = batch_size * method.options.evaluations_per_image

    made_by = {
        "model": str(model),
        "model_fingerprint": method.predictor.fingerprint,
        "options": method.options.to_dict(),
        "resolution": method.resolution,
        "dtype": str(method.predictor.dtype).removeprefix("torch."),
        "reference": _describe_reference(reference),
    }
    # Read first: a view over the scores of a run that is overwritten is empty afterwards
    target = dict(zip(*samples.values(["id", "filepath"])))
    reference_paths = dict(zip(*reference_samples.values(["id", "filepath"])))
    _check_readable(reference_paths.values(), method.resolution, num_workers)
    config = _begin(dataset, run_key, made_by, heatmaps, overwrite)
    store = FieldStore(dataset, config, target)
    archive = ReferenceArchive(Path(config["folder"]))

    pending = {i: path for i, path in target.items() if i not in store.descriptors}
    outside = {i: path for i, path in reference_paths.items() if i not in target and i not in archive.descriptors}

    scorer = _Scorer(method, num_workers, total=len(pending) + len(outside))
    yield scorer.progress("Scoring images")
    yield from scorer.run(pending, store, "Scoring images")
    yield from scorer.run(outside, archive, "Reading the reference")

    config.update(_finish(dataset, config, target, reference_paths, store, archive, is_self=reference is None))
    config.update(
        status=COMPLETE,
        seconds=time.monotonic() - started,
        images_per_second=scorer.rate,
        device=str(method.predictor.device),
    )
    write_config(dataset, run_key, config)
    return DiffPathRun.load(dataset, run_key)


class _Scorer:
    """Feeds images to the method and results to a store, a chunk at a time."""

    def __init__(self, method, num_workers, total):
        self.method, self.num_workers, self.total = method, num_workers, total
        self.done, self.started = 0, time.monotonic()

    @property
    def rate(self):
        return self.done / max(time.monotonic() - self.started, 1e-9)

    def progress(self, label):
        return Progress(label, self.done, self.total, self.rate)

    def run(self, paths, store, label):
        if not paths:
            return
        size = self.method.images_per_pass
        reader = read_images(paths.values(), self.method.resolution, self.num_workers, lookahead=4 * size)
        flushed = time.monotonic()
        batch = {}
        with closing(reader):
            try:
                for sample_id, (image, error) in zip(paths, reader):
                    self.done += 1
                    if error:
                        store.add_error(sample_id, error)
                    else:
                        batch[sample_id] = image
                    if len(batch) < size:
                        continue
                    self._score(batch, store)
                    batch.clear()
                    if len(store) >= _FLUSH_IMAGES or time.monotonic() - flushed > _FLUSH_SECONDS:
                        store.flush()
                        flushed = time.monotonic()
                    yield self.progress(label)
                self._score(batch, store)
            finally:
                store.flush()
        yield self.progress(label)

    def _score(self, batch, store):
        result = self.method.score_images(list(batch.values()))
        for position, sample_id in enumerate(batch):
            if np.isfinite(result.descriptor[position]).all():
                store.add(sample_id, result[position])
            else:
                store.add_error(sample_id, "the model gave features that are not finite; try dtype='float32'")


def _check_samples(samples, run_key):
    if not isinstance(samples, fo.core.collections.SampleCollection):
        raise ValueError(f"samples must be a FiftyOne dataset or view, got {type(samples).__name__}")
    dataset = samples._root_dataset
    if not run_key.isidentifier():
        raise ValueError(f"run_key must be letters, digits and underscores, got {run_key!r}")
    _check_images(samples)
    return dataset


def _check_images(samples):
    if samples._dataset._is_generated:
        raise ValueError("diffpath scores whole images; pass a view of samples, not of patches, frames or clips")
    if samples.media_type == "group":
        raise ValueError("the samples are groups; pass one slice, as in dataset.select_group_slices('left')")
    if samples.media_type not in ("image", None):
        raise ValueError(f"diffpath scores images, but the samples are of media type {samples.media_type!r}")
    if len(samples) == 0:
        raise ValueError(f"there are no images in {samples.name or samples.dataset_name!r}; pass a view that has some")


def _resolve_reference(dataset, samples, reference):
    if reference is None:
        chosen = samples
    elif isinstance(reference, str):
        chosen = dataset.match_tags(reference)
        if len(chosen) == 0:
            tags = ", ".join(map(repr, dataset.distinct("tags"))) or "none"
            raise ValueError(f"no sample of {dataset.name!r} has the reference tag {reference!r}; its tags are {tags}")
    else:
        if not isinstance(reference, fo.core.collections.SampleCollection):
            raise ValueError(f"reference must be a view, a dataset, a tag or None, got {type(reference).__name__}")
        chosen = reference
        _check_images(chosen)
    if len(chosen) < MIN_REFERENCE_SIZE:
        raise ValueError(f"a reference needs at least {MIN_REFERENCE_SIZE} images, got {len(chosen)}; add some")
    return chosen


def _check_readable(paths, resolution, num_workers):
    """Looks for enough readable reference images, so that a hopeless run costs no time and no earlier run."""
    with closing(read_images(paths, resolution, num_workers, lookahead=2 * MIN_REFERENCE_SIZE)) as reader:
        readable = sum(1 for _ in islice((image for image, error in reader if not error), MIN_REFERENCE_SIZE))
    _check_reference_size(readable)


def _check_reference_size(readable):
    if readable < MIN_REFERENCE_SIZE:
        raise ValueError(
            f"a reference needs at least {MIN_REFERENCE_SIZE} readable images, got {readable}; choose another reference"
        )


def _describe_reference(reference):
    if reference is None:
        return {"kind": "self"}
    if isinstance(reference, str):
        return {"kind": "tag", "tag": reference}
    if isinstance(reference, fo.Dataset):
        return {"kind": "dataset", "dataset": reference.name}
    stages = reference._serialize(include_uuids=False)
    return {"kind": "view", "dataset": reference.dataset_name, "name": reference.name, "stages": str(stages)}


def _begin(dataset, run_key, made_by, heatmaps, overwrite):
    """Registers a new run, or takes up an interrupted one that the same arguments began."""
    config = read_config(dataset, run_key)
    if config is not None and not overwrite:
        if config["status"] == COMPLETE:
            raise ValueError(
                f"dataset {dataset.name!r} already has a run {run_key!r}; pass overwrite=True to replace it, "
                "or another run_key"
            )
        if config["made_by"] == made_by and config["heatmaps"] == heatmaps:
            return config
        raise ValueError(
            f"run {run_key!r} was interrupted and had other options; call it with the same ones to go on, "
            "or pass overwrite=True to start again"
        )
    if config is not None:
        delete_diffpath(dataset, run_key)
    config = new_config(run_key, made_by=made_by, heatmaps=heatmaps, folder=run_folder(dataset, run_key))
    check_free(dataset, run_key, config)
    write_config(dataset, run_key, config)
    create_fields(dataset, config["fields"])
    if heatmaps:
        config["made_color_scheme"] = color_heatmaps(dataset, config["fields"]["heatmap"])
        write_config(dataset, run_key, config)
    return config


def _finish(dataset, config, target, reference_ids, store, archive, is_self):
    """Fits the density, writes scores and views, and returns what the run is to record of them."""
    from ..detector import AnomalyDetector

    described = store.descriptors
    known = {**archive.descriptors, **described}
    reference_ids = [sample_id for sample_id in reference_ids if sample_id in known]
    _check_reference_size(len(reference_ids))
    detector = AnomalyDetector(**(SELF_REFERENCE if is_self else {}))
    detector.fit(np.stack([known[sample_id] for sample_id in reference_ids]))

    scores = dict(zip(reference_ids, detector.reference_scores_.tolist()))
    unseen = [sample_id for sample_id in described if sample_id not in scores]
    if unseen:
        scores.update(zip(unseen, detector.score_samples(np.stack([described[i] for i in unseen])).tolist()))
    scores = {sample_id: scores[sample_id] for sample_id in described}

    fields, threshold = config["fields"], detector.threshold_
    if scores:
        dataset.set_values(fields["score"], scores, key_field="id")
    describe_threshold(dataset, fields, threshold)
    save_views(dataset, fields, config["views"], threshold)
    return {
        "threshold": threshold,
        "num_scored": len(scores),
        "num_unreadable": len(target) - len(scores),
        "num_likely_ood": sum(score >= threshold for score in scores.values()),
        "num_reference": len(reference_ids),
        "detector": detector.get_params(),
    }
