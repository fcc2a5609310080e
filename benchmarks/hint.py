"""Can the descriptor tell a corrupted image from one of another kind?

    python -m benchmarks.hint

For each development set as the reference, images of the other sets and corrupted images of
the set itself (fifteen kinds, severity 3) that the detector flags are described by their
z-scores. A logistic regression on the other references' images, with a third of the kinds of
corruption and one set of images left out of its training, then judges the left-out ones: a
hint deserves to be shown only if it beats chance where reference, corruption and
intruders are all new to it.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from diffpath import AnomalyDetector

from .accuracy.corruptions import CORRUPTIONS, corrupt
from .accuracy.datasets import DEVELOPMENT, load_set, split
from .accuracy.descriptors import descriptor, statistics
from .accuracy.evaluations import Evaluations, load_predictor
from .accuracy.methods import DEFAULT

SEVERITY, COUNT, GROUPS = 3, 20, 3
STRENGTHS = (0.001, 0.1, 10)  # inverse strengths of the regression's penalty: none was chosen, all are shown


def main():
    evaluations = Evaluations(load_predictor())
    sets = {name: load_set(name) for name in DEVELOPMENT}
    rows = [row for name in sets for row in flagged(evaluations, sets, name)]
    references, sources, corrupted = (np.array([row[k] for row in rows]) for k in range(3))
    Z = np.stack([row[3] for row in rows])
    print(f"{len(rows)} flagged images, {corrupted.mean():.0%} of them corrupted; reference and kind left out")
    print(f"{'penalty':<10}{'reference':<14}{'AUROC':>8}{'balanced accuracy':>20}")
    for strength in STRENGTHS:
        results = {name: judge(Z, references, sources, corrupted, name, list(sets), strength) for name in sets}
        results["average"] = np.mean(list(results.values()), axis=0)
        for name, (auroc, accuracy) in results.items():
            print(f"{strength:<10}{name:<14}{auroc:>8.3f}{accuracy:>20.3f}")


def judge(Z, references, sources, corrupted, name, names, strength):
    """AUROC and balanced accuracy on one reference's images of sources that the regression has not seen."""
    kinds, truths, scores = list(CORRUPTIONS), [], []
    for group in range(GROUPS):
        left_out = np.isin(sources, [*kinds[group::GROUPS], *names[group::GROUPS]])
        train, test = (references != name) & ~left_out, (references == name) & left_out
        model = LogisticRegression(C=strength, class_weight="balanced", max_iter=5000)
        scores.append(model.fit(Z[train], corrupted[train]).decision_function(Z[test]))
        truths.append(corrupted[test])
    truths, scores = np.concatenate(truths), np.concatenate(scores)
    return roc_auc_score(truths, scores), balanced_accuracy_score(truths, scores > 0)


def flagged(evaluations, sets, name):
    """(reference, corruption or set, whether corrupted, compressed z-scores) of every flagged image."""
    parts = split(sets[name].sources, 0)
    describe = lambda images: descriptor(statistics(evaluations, images), DEFAULT)  # noqa: E731
    detector = AnomalyDetector().fit(describe(sets[name].images)[parts["fit"]])
    clean = sets[name].images[parts["test"]][:COUNT]
    batches = [(kind, True, describe(corrupt(clean, kind, SEVERITY))) for kind in CORRUPTIONS]
    batches += [(other, False, describe(sets[other].images)[:60]) for other in sets if other != name]
    for source, is_corrupted, X in batches:
        found = X[detector.predict(X) == -1]
        for z_scores in detector.z_scores(found) if len(found) else ():
            yield name, source, is_corrupted, np.arcsinh(z_scores)


if __name__ == "__main__":
    main()
