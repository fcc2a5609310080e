"""Pairs, metrics and averages.

A detector is fitted on the *fit* part of the in-distribution set; its *test* part stands
against the *test* part of the other set. The positive class is the anomaly.
"""

from itertools import permutations

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

SEEDS = (0, 1, 2)


def metrics(normal_scores, anomaly_scores):
    """AUROC, AUPR with anomalies and with normal images as positives, and FPR at 95 % TPR of anomalies.

    Scores are higher for anomalies.
    """
    labels = np.r_[np.zeros(len(normal_scores)), np.ones(len(anomaly_scores))]
    scores = np.r_[normal_scores, anomaly_scores]
    false_positive, true_positive, _ = roc_curve(labels, scores)
    return {
        "auroc": float(roc_auc_score(labels, scores)),
        "aupr_anomaly": float(average_precision_score(labels, scores)),
        "aupr_normal": float(average_precision_score(1 - labels, -scores)),
        "fpr95": float(false_positive[np.argmax(true_positive >= 0.95)]),
    }


def run_pairs(features, splits, make_detector, names, seeds=SEEDS):
    """All ordered pairs.

    Args:
        features: name -> descriptors ``(N, D)``
        splits: (name, seed) -> the indices of each part
        make_detector: seed -> an object with ``fit(X)`` and ``score_samples(X)``, higher for anomalies
        names: the sets

    Returns:
        (in-distribution, other) -> a list with the metrics of each seed
    """
    results = {pair: [] for pair in permutations(names, 2)}
    for seed in seeds:
        for inside in names:
            parts = splits[inside, seed]
            detector = make_detector(seed).fit(features[inside][parts["fit"]])
            normal = detector.score_samples(features[inside][parts["test"]])
            for outside in names:
                if outside != inside:
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
