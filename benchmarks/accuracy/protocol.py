"""Pairs, metrics and averages.

A detector is fitted on the *fit* part of the in-distribution set; its *test* part stands
against the *test* part of the other set. The positive class is the anomaly.
"""

import numpy as np

from diffpath.detection.evaluation import measures

SEEDS = (0, 1, 2)


def metrics(normal_scores, anomaly_scores):
    """Measures, as in :class:`diffpath.detection.evaluation.Evaluation`, of two parts' scores, higher for anomalies."""
    labels = np.r_[np.zeros(len(normal_scores), bool), np.ones(len(anomaly_scores), bool)]
    return measures(np.r_[normal_scores, anomaly_scores], labels)


def run_pairs(features, splits, make_detector, pairs, seeds=SEEDS):
    """The metrics of every pair and seed.

    Args:
        features: name -> descriptors ``(N, D)``
        splits: (name, seed) -> the indices of each part
        make_detector: seed -> an object with ``fit(X)`` and ``score_samples(X)``, higher for anomalies
        pairs: (in-distribution, other), of names

    Returns:
        (in-distribution, other) -> a list with the metrics of each seed
    """
    results = {pair: [] for pair in pairs}
    for seed in seeds:
        for inside in dict.fromkeys(pair[0] for pair in results):
            parts = splits[inside, seed]
            detector = make_detector(seed).fit(features[inside][parts["fit"]])
            normal = detector.score_samples(features[inside][parts["test"]])
            for outside in (pair[1] for pair in results if pair[0] == inside):
                anomalies = detector.score_samples(features[outside][splits[outside, seed]["test"]])
                results[inside, outside].append(metrics(normal, anomalies))
    return results


def summary(results, metric="auroc"):
    """Average over pairs with its spread over seeds, minimum over pairs of the mean, and averages per set."""
    table = {pair: np.array([run[metric] for run in runs]) for pair, runs in results.items()}
    values = np.array(list(table.values()))
    worst = min(table, key=lambda pair: table[pair].mean())
    inside = sorted({pair[0] for pair in table}, key=[pair[0] for pair in table].index)
    return {
        "average": float(values.mean()),
        "spread": float(values.mean(axis=0).std(ddof=1)) if values.shape[1] > 1 else 0.0,
        "minimum": float(table[worst].mean()),
        "worst_pair": worst,
        "by_set": {name: float(np.mean([table[p].mean() for p in table if p[0] == name])) for name in inside},
    }
