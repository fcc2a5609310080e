"""Questions beside how well anomalies are told apart.

:func:`supervised_pairs`: what does a classifier reach that has seen both sets? No detector that knows
one of them alone can be expected to do better with the same features.

:func:`supervised_corruptions`: and one that was shown corrupted pictures of the reference, of the kind
in question or of others?

:func:`flagged_shares`: are as many images of the reference's own kind flagged as the level says,
where these are of pictures that the reference has not?
"""

import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from .protocol import metrics

LEVEL = 0.05


def supervised_pairs(features, splits, pairs, seeds):
    """The metrics of every pair and seed, by a support vector machine of the fit parts of both sets.

    Args:
        features: name -> ``(N, D)``
        splits: (name, seed) -> the indices of each part
        pairs: (in-distribution, other), of names
        seeds: of the splits

    Returns:
        (in-distribution, other) -> a list with the metrics of each seed
    """
    results = {}
    for inside, outside in pairs:
        results[inside, outside] = []
        for seed in seeds:
            known, asked = (
                [features[name][splits[name, seed][part]] for name in (inside, outside)] for part in ("fit", "test")
            )
            results[inside, outside].append(_classified(known, asked))
    return results


def supervised_corruptions(clean, corrupted, test, seen_kinds):
    """AUROC by kind of a classifier of clean and corrupted reference images.

    Args:
        clean: features of the reference's images, ``(N, D)``
        corrupted: kind -> those of some of them, corrupted
        test: kind -> (features of clean test images, of corrupted ones)
        seen_kinds: kind -> the kinds that the classifier is shown when it is asked for this one
    """
    results = {}
    for kind, parts in test.items():
        shown = np.vstack([corrupted[other] for other in seen_kinds(kind)])
        results[kind] = _classified([clean, shown], parts, class_weight="balanced")["auroc"]
    return results


def flagged_shares(features, sources, splits, make_detector, seeds):
    """How many of a set's test images a reference of its fit part flags at ``LEVEL``.

    Args:
        features: ``(N, D)``
        sources: the source file of each image, ``(N,)``; test and fit part share none
        splits: seed -> the indices of each part
        make_detector: seed -> a :class:`diffpath.detection.detector.CalibratedDetector`
        seeds: of splits and fits

    Returns:
        the mean share over seeds, without the sources as groups and with them
    """
    shares = []
    for seed in seeds:
        fit, test = splits[seed]["fit"], splits[seed]["test"]
        for groups in (None, sources[fit]):
            detector = make_detector(seed).fit(features[fit], groups=groups)
            shares.append(np.mean(detector.p_values(features[test]) <= LEVEL))
    return np.reshape(shares, (-1, 2)).mean(axis=0).tolist()


def _classified(known, asked, **options):
    """The metrics of a support vector machine of known normal images and anomalies, on others of both."""
    truth = np.repeat([0, 1], [len(part) for part in known])
    machine = make_pipeline(StandardScaler(), SVC(**options)).fit(np.vstack(known), truth)
    return metrics(*(machine.decision_function(part) for part in asked))
