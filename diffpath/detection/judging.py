"""What a detector says of images, in numbers and in words, whether it was fitted on them or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from ..options import FEATURE_NAMES
from .explanation import AS_A_WHOLE, explain, words_of_detail
from .fusion import FusedDetector
from .looks import LooksDetector

if TYPE_CHECKING:
    from .reference import AnyDetector

_NUM_FEATURES = len(FEATURE_NAMES)


def judge(X: Float[np.ndarray, "n d"], own: Int[np.ndarray, " n"], detector: AnyDetector) -> dict[str, list[Any]]:
    """What a fitted detector says of images.

    Args:
        X: their descriptors, each with its embedding behind it where the detector has embeddings
        own: their places in the reference, which are judged by fits that did not see them; −1 for others
        detector: a fitted one of any kind

    Returns:
        lists of n by kind: ``"score"``, ``"p_value"``, ``"explanation"``, and of looks and embeddings what each
        says for itself
    """
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
