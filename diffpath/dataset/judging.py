"""Turns stored descriptors into scores, p-values and explanations; the network has no part in it."""

import numpy as np

from ..options import FEATURE_NAMES
from .runs import reference_file
from .schema import describe

_NUM_FEATURES = len(FEATURE_NAMES)


def judge(dataset, config, descriptors, reference, reference_ids=()):
    """Saves the reference with the run, writes scores, and returns what the run is to record.

    Args:
        dataset: the ``fo.Dataset``
        config: the run's record
        descriptors: ``{sample id: descriptor}``, the six features first
        reference: a fitted :class:`diffpath.Reference`
        reference_ids: ids of the samples that it was fitted on, in its order: they get
            the scores by fits that did not see them
    """
    path = reference_file(config)
    path.parent.mkdir(parents=True, exist_ok=True)
    reference.save(path)
    detector, fields = reference.detector, config["fields"]
    write_scores(dataset, fields, descriptors, detector, reference_ids)
    smallest = detector.smallest_p_value_
    describe(
        dataset,
        fields,
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


def write_scores(dataset, fields, descriptors, detector, reference_ids=()):
    """Scores descriptors and writes scores, p-values and explanations."""
    if not descriptors:
        return
    from ..explanation import explain

    ids = list(descriptors)
    X = np.stack([descriptors[i] for i in ids]).astype(np.float64)
    position = {sample_id: k for k, sample_id in enumerate(reference_ids)}
    own = np.array([position.get(i, -1) for i in ids])
    seen, new = own >= 0, own < 0
    scores, p_values = np.empty(len(ids)), np.empty(len(ids))
    scores[seen], p_values[seen] = detector.reference_scores_[own[seen]], detector.reference_p_values_[own[seen]]
    if new.any():
        scores[new] = detector.score_samples(X[new])
        p_values[new] = detector.calibration_.p_values(scores[new])
    explanations = explain(detector.z_scores(X)[:, :_NUM_FEATURES])
    columns = {"score": scores.tolist(), "p_value": p_values.tolist(), "explanation": explanations}
    for kind, values in columns.items():
        dataset.set_values(fields[kind], dict(zip(ids, values)), key_field="id")
