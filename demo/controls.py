"""How much of the demo's AUROC comes from content, and how much from the background?

Clothing lies on black; the drawings and emoji lie on white, and photos and textures fill
the frame. This prints, for each kind, the AUROC against clean clothing of

- the grey level of the image's border (its median), which needs no model;
- diffpath, with the pictures as they are;
- diffpath, with the same pictures' grey levels inverted, so that white borders are black.

The last row inverts clothing itself. Run it from the project's folder::

    python demo/controls.py
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.metrics import roc_auc_score

DEMO = Path(__file__).resolve().parent
INTRUDERS = ("drawings", "emoji", "photos", "textures")


def main():
    from diffpath import AnomalyDetector, DiffPathV2

    method = DiffPathV2()
    detector = AnomalyDetector().fit(method.score_images(read("reference")).descriptor)

    def score(images):
        return detector.score_samples(method.score_images(images).descriptor)

    clean = read("clean")
    clean_border, clean_score = border(clean), score(clean)
    print(f"{'kind':<12}{'border':>10}{'diffpath':>10}{'inverted':>10}")
    for kind in INTRUDERS:
        images = read(kind)
        aurocs = (
            auroc(clean_border, border(images)),
            auroc(clean_score, score(images)),
            auroc(clean_score, score(255 - images)),
        )
        print(f"{kind:<12}" + "".join(f"{value:>10.3f}" for value in aurocs))
    print(f"{'clothing':<12}{'':>10}{'':>10}{auroc(clean_score, score(255 - clean)):>10.3f}")


def read(kind):
    return np.stack([np.asarray(Image.open(path)) for path in sorted((DEMO / "data" / kind).glob("*.png"))])


def border(images):
    sides = [images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]]
    return np.median(np.concatenate(sides, axis=1), axis=1)


def auroc(negatives, positives):
    labels = np.r_[np.zeros(len(negatives)), np.ones(len(positives))]
    return roc_auc_score(labels, np.r_[negatives, positives])


if __name__ == "__main__":
    sys.path.insert(0, str(DEMO.parent))
    main()
