"""Turns stored descriptors into scores, p-values and explanations; the network has no part in it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import numpy as np

from ..detection.judging import judge
from ..folders.files import file_keys
from ..options import FEATURE_NAMES
from .record import RunRecord
from .schema import describe

if TYPE_CHECKING:
    from ..detection.reference import Reference

_NUM_FEATURES = len(FEATURE_NAMES)
_CHUNK = 20_000  # images, whose descriptors and embeddings are held together


def write_results(
    dataset: fo.Dataset,
    record: RunRecord,
    descriptors: Mapping[str, np.ndarray],
    reference: Reference,
    paths: Mapping[str, str],
) -> dict[str, Any]:
    """Saves the reference with the run and writes scores.

    Args:
        dataset: the ``fo.Dataset``
        record: the run's record
        descriptors: ``{sample id: descriptor}``, the six features first; with its embedding
            behind it where the run has embeddings
        reference: a fitted :class:`diffpath.Reference`
        paths: ``{sample id: file path}``: images that the reference was fitted on get the
            scores by fits that did not see them

    Returns:
        what the run's record is to hold of it
    """
    record.reference_path.parent.mkdir(parents=True, exist_ok=True)
    reference.save(record.reference_path)
    detector = reference.detector
    write_scores(dataset, record.fields, descriptors, reference, paths)
    smallest = detector.smallest_p_value_
    describe(
        dataset,
        record.fields,
        "p_value",
        f"{len(detector.calibration_scores_):,} images to compare with, so that {smallest:.2g} is the smallest possible"
        if smallest
        else "approximate, from the central part of the images themselves, as there is no reference",
    )
    return {
        "detector": detector.get_params(),
        "num_scored": len(descriptors),
        "num_reference": len(detector.reference_scores_),
        "num_calibration": len(detector.calibration_scores_),
        "smallest_p_value": smallest,
        "feature_centre": detector.feature_centre_[:_NUM_FEATURES].tolist(),
        "feature_scale": detector.feature_scale_[:_NUM_FEATURES].tolist(),
    }


def write_scores(
    dataset: fo.Dataset,
    fields: Mapping[str, str],
    descriptors: Mapping[str, np.ndarray],
    reference: Reference,
    paths: Mapping[str, str],
) -> None:
    """Scores descriptors and writes scores, p-values and explanations, some images at a time."""
    detector, ids = reference.detector, iter(descriptors)
    while some := list(islice(ids, _CHUNK)):
        X = np.stack([descriptors[i] for i in some]).astype(np.float64)
        own = reference.places(file_keys(paths[i] for i in some))
        columns = judge(X, own, detector)
        for kind in sorted(columns, key=lambda kind: kind == "score"):  # last: an image that has it is done
            values = columns[kind]
            dataset.set_values(fields[kind], dict(zip(some, values)), key_field="id")
