"""Turns stored descriptors into scores, p-values and explanations; the network has no part in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import numpy as np

from ..detection.explanation import explain
from ..options import FEATURE_NAMES
from .files import file_keys
from .record import RunRecord
from .schema import describe

if TYPE_CHECKING:
    from ..detection.detector import AnomalyDetector
    from ..detection.fusion import FusedDetector
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
    from ..detection.fusion import FusedDetector

    detector, ids = reference.detector, iter(descriptors)
    while some := list(islice(ids, _CHUNK)):
        X = np.stack([descriptors[i] for i in some]).astype(np.float64)
        own = reference.places(file_keys(paths[i] for i in some))
        if isinstance(detector, FusedDetector):
            columns = _fused_columns(X, own, detector)
        else:
            columns = _plain_columns(X, own, detector)
        for kind, values in columns.items():
            dataset.set_values(fields[kind], dict(zip(some, values)), key_field="id")


def _plain_columns(X: np.ndarray, own: np.ndarray, detector: AnomalyDetector) -> dict[str, list[Any]]:
    """Values by kind of field; ``own`` holds the samples' places in the reference, −1 for others."""
    scores = _of_reference_or(detector.reference_scores_, own, lambda new: detector.score_samples(X[new]))
    scored = _scores_and_p_values(scores, own, detector)
    return {**scored, "explanation": explain(_six_z_scores(X, detector), scored["p_value"])}


def _fused_columns(X: np.ndarray, own: np.ndarray, detector: FusedDetector) -> dict[str, list[Any]]:
    parts = _of_reference_or(detector.reference_parts_, own, lambda new: detector.part_scores(X[new]))
    scored = _scores_and_p_values(detector.fuse(parts), own, detector)
    explanations = explain(_six_z_scores(X, detector), scored["p_value"], detector.part_p_values(parts)[:, 1])
    named = {"diffusion_score": parts[:, 0].tolist(), "embedding_score": parts[:, 1].tolist()}
    return {**scored, **named, "explanation": explanations}


def _scores_and_p_values(
    scores: np.ndarray, own: np.ndarray, detector: AnomalyDetector | FusedDetector
) -> dict[str, list[float]]:
    rank = detector.calibration_.p_values
    p_values = _of_reference_or(detector.reference_p_values_, own, lambda new: rank(scores[new]))
    return {"score": scores.tolist(), "p_value": p_values.tolist()}


def _of_reference_or(known: np.ndarray, own: np.ndarray, compute: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """What is known of the reference's samples, and ``compute(new)`` for the others, a mask."""
    values, new = known[own], own < 0
    if new.any():
        values[new] = compute(new)
    return values


def _six_z_scores(X: np.ndarray, detector: AnomalyDetector | FusedDetector) -> np.ndarray:
    return detector.z_scores(X)[:, :_NUM_FEATURES]
