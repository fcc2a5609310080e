"""How much of the demo's AUROC would a look at the grey levels give?

This prints, for each kind, the AUROC against clean clothing of

- controls that need no model: the border's median and mean grey level, the whole image's mean
  grey level, and its contrast (standard deviation);
- diffpath.

A control far from 0.5, on either side, tells the kind from clothing by itself. Run it from the
project's folder::

    python demo/controls.py
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.metrics import roc_auc_score

DEMO = Path(__file__).resolve().parent
INTRUDERS = ("drawings", "emoji", "animals", "digits", "textures", "photos")


def main():
    from diffpath import AnomalyDetector, DiffPathV2

    method = DiffPathV2()
    detector = AnomalyDetector().fit(method.score_images(read("reference")).descriptor)
    measures = {
        "border median": lambda images: np.median(border(images), axis=1),
        "border mean": lambda images: border(images).mean(axis=1),
        "mean": lambda images: images.mean(axis=(1, 2)),
        "contrast": lambda images: images.std(axis=(1, 2)),
        "diffpath": lambda images: detector.score_samples(method.score_images(images).descriptor),
    }
    clean = read("clean")
    of_clean = {name: measure(clean) for name, measure in measures.items()}
    print(f"{'kind':<10}" + "".join(f"{name:>15}" for name in measures))
    for kind in INTRUDERS:
        images = read(kind)
        aurocs = [auroc(of_clean[name], measure(images)) for name, measure in measures.items()]
        print(f"{kind:<10}" + "".join(f"{value:>15.3f}" for value in aurocs))


def read(kind):
    return np.stack([np.asarray(Image.open(path)) for path in sorted((DEMO / "data" / kind).glob("*.png"))])


def border(images):
    return np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)


def auroc(negatives, positives):
    labels = np.r_[np.zeros(len(negatives)), np.ones(len(positives))]
    return roc_auc_score(labels, np.r_[negatives, positives])


if __name__ == "__main__":
    sys.path.insert(0, str(DEMO.parent))
    main()
