"""Turns stored descriptors into scores, p-values and explanations; the network has no part in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import numpy as np

from ..detection.explanation import AS_A_WHOLE, explain, words_of_detail
from ..folders.files import file_keys
from ..options import FEATURE_NAMES
from .record import RunRecord
from .schema import describe

if TYPE_CHECKING:
    from ..detection.looks import LooksDetector
    from ..detection.reference import AnyDetector, Reference

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
        columns = _columns(X, own, detector)
        for kind in sorted(columns, key=lambda kind: kind == "score"):  # last: an image that has it is done
            values = columns[kind]
            dataset.set_values(fields[kind], dict(zip(some, values)), key_field="id")


def _columns(X: np.ndarray, own: np.ndarray, detector: AnyDetector) -> dict[str, list[Any]]:
    """Values by kind of field; ``own`` holds the samples' places in the reference, −1 for others."""
    from ..detection.fusion import FusedDetector
    from ..detection.looks import LooksDetector

    named: dict[str, list[Any]] = {}
    apart: dict[str, np.ndarray] = {}
    of_descriptor = X
    if isinstance(detector, FusedDetector):
        parts = _of_reference_or(detector.reference_parts_, own, lambda new: detector.part_scores(X[new]))
        scores = detector.fuse(parts)
        named = {"diffusion_score": parts[:, 0].tolist(), "embedding_score": parts[:, 1].tolist()}
        apart["embedding"] = detector.part_p_values(parts)[:, 1]
        of_descriptor, look = X[:, : -detector.embedding_length], detector.detector_
    else:
        scores = _of_reference_or(detector.reference_scores_, own, lambda new: detector.score_samples(X[new]))
        look = detector
    words: dict[str, list[str]] = {}
    if isinstance(look, LooksDetector):
        of_looks = _columns_of_looks(of_descriptor, own, look)
        named = {**named, **of_looks}
        apart = {
            "detail": np.array(of_looks["detail_p_value"]),
            "whole": np.array(of_looks["content_p_value"]),
            **apart,
        }
        words = {"detail": words_of_detail(look.detail_z_scores(of_descriptor)), "whole": [AS_A_WHOLE] * len(X)}
    scored = _scores_and_p_values(scores, own, detector)
    return {**scored, **named, "explanation": explain(_six_z_scores(X, detector), scored["p_value"], apart, words)}


def _columns_of_looks(X: np.ndarray, own: np.ndarray, detector: LooksDetector) -> dict[str, list[Any]]:
    """What each look says for itself, by kind of field."""
    parts = _of_reference_or(detector.reference_parts_, own, lambda new: detector.part_scores(X[new]))
    looks = {"content": detector.content_, "detail": detector.detail_}
    return {
        f"{name}_{kind}": values
        for (name, look), column in zip(looks.items(), parts.T)
        for kind, values in _scores_and_p_values(column, own, look).items()
    }


def _scores_and_p_values(scores: np.ndarray, own: np.ndarray, detector: AnyDetector) -> dict[str, list[float]]:
    rank = detector.calibration_.p_values
    p_values = _of_reference_or(detector.reference_p_values_, own, lambda new: rank(scores[new]))
    return {"score": scores.tolist(), "p_value": p_values.tolist()}


def _of_reference_or(known: np.ndarray, own: np.ndarray, compute: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """What is known of the reference's samples, and ``compute(new)`` for the others, a mask."""
    values, new = known[own], own < 0
    if new.any():
        values[new] = compute(new)
    return values


def _six_z_scores(X: np.ndarray, detector: AnyDetector) -> np.ndarray:
    return detector.z_scores(X)[:, :_NUM_FEATURES]
