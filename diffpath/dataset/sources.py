"""What is normal: samples of a dataset, or a reference that was fitted before.

Both kinds have ``description`` (JSON-ready), ``paths`` (``{sample id: file path}`` of the
images to read), ``embeddings(field)``, which reads those of its samples and leaves out
samples without, ``check(method, made_by, num_workers)``, which refuses what cannot succeed
before anything is written, ``keep(path)``, which writes what a continued run could not find
again, and ``fit(descriptors, made_by)``, which gives a fitted
:class:`diffpath.Reference` and the ids of the samples that it was fitted on, in order.
"""

import hashlib
import os
from contextlib import closing
from itertools import islice

import fiftyone as fo
import numpy as np
from bson import json_util

from ..options import MIN_REFERENCE_SIZE
from .embeddings import Embeddings
from .groups import read_groups
from .reading import read_images

# Contaminants form kernels of their own in a kernel density; one Gaussian of the central part hides them less
SELF_REFERENCE = dict(density="mahalanobis", trim=0.3)


def resolve_reference(dataset, samples, reference, groups=None):
    """What a caller passes as reference, as one of the two kinds.

    Args:
        dataset: the dataset that is scored
        samples: the collection that is scored
        reference: None for the samples themselves, the name of a sample tag, a view or
            dataset, a :class:`diffpath.Reference`, or the ``Path`` of a saved one
        groups: the field of the reference's samples by which they belong together, or None

    Raises:
        ValueError: if it is none of these, or has too few images or groups
    """
    from ..detection.reference import Reference, load_reference

    if isinstance(reference, os.PathLike):
        reference = load_reference(reference)
    if isinstance(reference, Reference):
        if groups is not None:
            raise ValueError("a saved reference was fitted with its own groups; leave groups out")
        return FittedReference(reference)
    if reference is None:
        return SampleReference(samples, {"kind": "self"}, groups, SELF_REFERENCE)
    if isinstance(reference, str):
        return SampleReference(_tagged(dataset, reference), {"kind": "tag", "tag": reference}, groups)
    if not isinstance(reference, fo.core.collections.SampleCollection):
        raise ValueError(
            f"reference must be a view, a dataset, a tag, a saved reference or None, got {type(reference).__name__}"
        )
    check_images(reference)
    return SampleReference(reference, _describe_collection(reference), groups)


def check_images(samples):
    """Refuses a collection that does not consist of images."""
    if samples._dataset._is_generated:
        raise ValueError("diffpath scores whole images; pass a view of samples, not of patches, frames or clips")
    if samples.media_type == "group":
        raise ValueError("the samples are groups; pass one slice, as in dataset.select_group_slices('left')")
    if samples.media_type not in ("image", None):
        raise ValueError(f"diffpath scores images, but the samples are of media type {samples.media_type!r}")
    if len(samples) == 0:
        raise ValueError(f"there are no images in {samples.name or samples.dataset_name!r}; pass a view that has some")


class SampleReference:
    """Samples to fit a detector on.

    Args:
        samples: a dataset or view
        description: of them, JSON-ready
        groups: the field by which they belong together, or None
        detector_options: those of :class:`diffpath.AnomalyDetector`
    """

    def __init__(self, samples, description, groups=None, detector_options=None):
        if len(samples) < MIN_REFERENCE_SIZE:
            raise ValueError(f"a reference needs at least {MIN_REFERENCE_SIZE} images, got {len(samples)}; add some")
        self.description = description if groups is None else {**description, "groups": groups}
        self._groups = None if groups is None else read_groups(samples, groups)
        self.paths = dict(zip(*samples.values(["id", "filepath"])))
        self.samples, self._detector_options = samples, detector_options or {}

    def embeddings(self, field):
        found = Embeddings(self.samples, field)
        self.paths = {sample_id: path for sample_id, path in self.paths.items() if sample_id in found.vectors}
        if len(self.paths) < MIN_REFERENCE_SIZE:
            raise ValueError(
                f"a reference needs at least {MIN_REFERENCE_SIZE} images with an embedding in {field!r}, got "
                f"{len(self.paths)}; compute more of them, or choose another reference"
            )
        return found

    def check(self, method, made_by, num_workers):
        lookahead = 2 * MIN_REFERENCE_SIZE
        with closing(read_images(self.paths.values(), method.sides, num_workers, lookahead)) as reader:
            readable = sum(1 for _ in islice((image for image, error in reader if not error), MIN_REFERENCE_SIZE))
        _check_readable(readable)

    def keep(self, path):
        pass

    def fit(self, descriptors, made_by):
        from ..detection.reference import Reference

        ids = [sample_id for sample_id in self.paths if sample_id in descriptors]
        _check_readable(len(ids))
        X = np.stack([descriptors[i] for i in ids])
        groups = None if self._groups is None else [self._groups[i] for i in ids]
        return Reference.of(X, made_by, self.description, groups, **self._detector_options), ids


class FittedReference:
    """A reference that was fitted before and needs no images.

    Args:
        reference: a :class:`diffpath.Reference`
    """

    def __init__(self, reference):
        self._reference = reference
        scores = reference.detector.calibration_scores_
        self.description = {
            "kind": "saved",
            "made_from": reference.description,
            "fingerprint": hashlib.sha256(scores.tobytes()).hexdigest()[:16],
        }
        self.paths = {}

    def embeddings(self, field):
        return None

    def check(self, method, made_by, num_workers):
        self._reference.checked(made_by)

    def keep(self, path):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._reference.save(path)

    def fit(self, descriptors, made_by):
        return self._reference, []


def _tagged(dataset, tag):
    chosen = dataset.match_tags(tag)
    if len(chosen) == 0:
        tags = ", ".join(map(repr, dataset.distinct("tags"))) or "none"
        raise ValueError(f"no sample of {dataset.name!r} has the reference tag {tag!r}; its tags are {tags}")
    return chosen


def _describe_collection(samples):
    if isinstance(samples, fo.Dataset):
        return {"kind": "dataset", "dataset": samples.name}
    return {"kind": "view", "dataset": samples.dataset_name, "name": samples.name, "stages": serialize(samples)}


def serialize(samples):
    """The stages of a view as JSON, by which it can be made again; None for a whole dataset."""
    return None if isinstance(samples, fo.Dataset) else json_util.dumps(samples._serialize(include_uuids=False))


def _check_readable(readable):
    if readable < MIN_REFERENCE_SIZE:
        raise ValueError(
            f"a reference needs at least {MIN_REFERENCE_SIZE} readable images, got {readable}; choose another reference"
        )
