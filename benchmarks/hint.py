"""Can the two looks tell a corrupted photograph from a picture of another kind, and are their words right?

    python -m benchmarks.hint --folder ~/photographs [--model bundled]

Reference are photographs, as in ``benchmarks.accuracy photographs``; a third of them are corrupted in
fifteen kinds (severity 3), and intruders are drawings, textures of two games, and folders of
``--intruders``. Of what is flagged at 5 %, the logarithm of the ratio of how far out the two looks see
it, each in units of the reference's own spread, tells the corrupted from the intruders: nothing is
fitted for it. Beside it stands how often the words of the explanation name the right thing.
"""

import argparse
from itertools import islice
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from diffpath import DiffPathV2
from diffpath.detection.explanation import BLOCKS, FINE_GRAIN, LITTLE_DETAIL, words_of_detail
from diffpath.detection.looks import LooksDetector
from diffpath.method.descriptor import detail_length

from .accuracy.corruptions import CORRUPTIONS, corrupt
from .accuracy.datasets import COLOBOT, DRAWINGS, game_textures, shuffled
from .accuracy.packages import fetch
from .accuracy.photographs import ACCIDENTS, LEVEL, middle, read_folder, read_free

SEVERITY, SHARE, INTRUDERS, LEAST_SIDE = 3, 1 / 3, 60, 200
OF_A_WHOLE = ("snow", "frost", "fog", "brightness", "contrast")
EMPTY = ("contrast", "fog", "nearly black", "overexposed", "half grey")
RIGHT = {
    FINE_GRAIN: ("Gaussian noise", "shot noise", "impulse noise", "sensor noise"),
    LITTLE_DETAIL: ("defocus blur", "glass blur", "motion blur", "zoom blur", *EMPTY),
    BLOCKS: ("JPEG", "pixelate"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, nargs="*", default=[])
    parser.add_argument("--intruders", type=Path, nargs="*", default=[])
    parser.add_argument("--model", default="bundled")
    arguments = parser.parse_args()
    method = DiffPathV2(arguments.model, detail=3)
    describe = lambda images: method.score_images(images).descriptor  # noqa: E731
    intruders = {name: describe(images) for name, images in read_intruders(arguments.intruders).items()}
    references = {path.resolve().name: read_folder(path) for path in arguments.folder}
    for name, images in {**references, "free photographs": read_free()}.items():
        shuffled_images = images[np.random.default_rng(0).permutation(len(images))]
        spoilt, kept = np.split(shuffled_images, [int(SHARE * len(images))])
        corrupted = {kind: describe(corrupt(spoilt[:30], kind, SEVERITY)) for kind in CORRUPTIONS}
        accidents = {
            kind: describe(np.stack([spoil(image) for image in spoilt[:30]])) for kind, spoil in ACCIDENTS.items()
        }
        detector = LooksDetector(detail_length(method.options)).fit(describe(kept))
        print(f"## {name}, {len(kept)} as the reference\n")
        tell_apart(detector, corrupted, intruders)
        judge_words(detector, {**corrupted, **accidents}, intruders)


def read_intruders(folders):
    """Middles of pictures that are no photographs, uint8 ``(N, 320, 320, 3)`` by name."""
    next(iter(game_textures()))  # unpacks them
    unpacked = next(fetch("openarena-081-textures").glob("**/pak4-textures.pk3")).with_suffix("")
    clip_art, colobot = fetch("openclipart-png"), fetch("colobot-common-textures")
    files = {
        "drawings": [path for part in DRAWINGS for path in clip_art.glob(f"**/png/{part}/**/*.png")],
        "textures": [path for pattern in COLOBOT for path in colobot.glob(f"**/textures/{pattern}.png")],
        "game textures": [path for path in unpacked.rglob("*") if path.suffix.lower() in (".tga", ".jpg", ".png")],
        **{folder.resolve().name: list(folder.rglob("*.jpg")) for folder in folders},
    }
    return {name: np.stack(list(islice(_large(sorted(paths), name), INTRUDERS))) for name, paths in files.items()}


def _large(paths, name):
    for path in shuffled(paths, f"intruders {name}"):
        image = middle(path, least=LEAST_SIDE)
        if image is not None:
            yield image


def tell_apart(detector, corrupted, intruders):
    """Prints at which AUROC the ratio of the looks tells flagged images of both sorts apart."""
    own = detector.reference_parts_
    centre, spread = np.median(own, axis=0), np.quantile(own, 0.95, axis=0) - np.median(own, axis=0)

    def ratios(X):
        content, detail = np.maximum((detector.part_scores(X) - centre) / spread, 0.05).T
        return np.log(detail / content)[detector.p_values(X) <= LEVEL]

    wrong = {kind: ratios(X) for kind, X in corrupted.items()}
    other = {name: ratios(X) for name, X in intruders.items()}
    fine = {kind: values for kind, values in wrong.items() if kind not in OF_A_WHOLE}
    for title, kinds in (("all kinds", wrong), ("without weather and contrast", fine)):
        positive, negative = np.concatenate(list(kinds.values())), np.concatenate(list(other.values()))
        truth = np.repeat([1, 0], [len(positive), len(negative)])
        by_name = ", ".join(
            f"{name} {roc_auc_score(np.repeat([1, 0], [len(positive), len(v)]), np.r_[positive, v]):.2f}"
            for name, v in other.items()
            if len(v)
        )
        told = roc_auc_score(truth, np.r_[positive, negative])
        print(f"told apart, {title}: {told:.3f} ({len(positive)} and {len(negative)} flagged; {by_name})")


def judge_words(detector, wrong, intruders):
    """Prints of which flagged images each word is said, and how often it is right among the corrupted."""
    print("\n| words | said of corrupted | right | said of intruders |\n|---|---|---|---|")
    said = {kind: _said(detector, X) for kind, X in {**wrong, **intruders}.items()}
    for word, kinds in RIGHT.items():
        by_kind = {kind: sum(each == word for each in said[kind]) for kind in said}
        of_wrong = sum(by_kind[kind] for kind in wrong)
        right = sum(by_kind[kind] for kind in kinds)
        of_others = f"{sum(by_kind[name] for name in intruders)} of {sum(len(said[name]) for name in intruders)}"
        print(f"| {word} | {of_wrong} | {right / max(of_wrong, 1):.0%} | {of_others} |")
    print()


def _said(detector, X):
    """The words of images that are flagged, and whose detail lies far out."""
    far_out = detector.detail_.calibration_.p_values(detector.part_scores(X)[:, 1]) <= LEVEL
    return np.array(words_of_detail(detector.detail_z_scores(X)))[far_out & (detector.p_values(X) <= LEVEL)]


if __name__ == "__main__":
    main()
