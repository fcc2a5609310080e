"""Where an image is unusual: maps from the same evaluations, on pasted patches with known masks.

Grounds are the test parts of some sets; into each picture a drawing or noise is pasted.
A mask holds the pixels that this changed. A map that is *z-scored* is compared, pixel by
pixel, with its mean and deviation over the fit part; the anomaly map is of a reference that is
that part. *visible* is what of it is drawn: from 1 in 20 to 1 in 10,000.

Images of the other grounds are ranked by the means of their maps, too: a map is to agree with the
score on what does not belong.
"""

import numpy as np
from PIL import Image
from scipy.integrate import trapezoid
from scipy.ndimage import label, uniform_filter
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from diffpath.detection.local import LocalReference
from diffpath.folders.maps import MAPS
from diffpath.method.features import error_maps, heatmaps
from diffpath.method.local import local_evidence
from diffpath.method.ssim import HEATMAP_C, LocalMoments, local_mean
from diffpath.method.trajectory import Trajectory

from .datasets import load_set, split
from .descriptors import CONSTANTS
from .evaluations import to_network_scale
from .methods import METHODS
from .protocol import metrics

PATCH = 10
GROUNDS = ("clothing", "solar cells", "textures", "photos")
TEST_GROUNDS = ("animals", "emoji", "game textures", "objects")  # nothing was chosen on these
MOST_FALSE_POSITIVES = 0.3
LEAST_CHANGE = 10  # grey levels; a drawing's white background changes nothing where the ground is white too
Z_SCORED = ("heatmap", "error map")
_CHUNK = 30


def pasted_patches(ground, patch, count=60, seed=0):
    """Images uint8 ``(N, 32, 32, 3)`` and masks ``(N, 32, 32)`` of what was pasted into a set's test part."""
    inside = load_set(ground)
    images = inside.images[split(inside.sources, seed)["test"]][:count]
    if patch == "noise":
        patches = np.random.default_rng(1).integers(0, 256, (len(images), PATCH, PATCH, 3), dtype=np.uint8)
    else:
        others = load_set(patch)
        others = others.images[split(others.sources, seed)["test"]][: len(images)]
        patches = np.stack(
            [np.asarray(Image.fromarray(x).resize((PATCH, PATCH), Image.Resampling.BOX)) for x in others]
        )
    return paste(images[: len(patches)], patches)


def paste(images, patches):
    """Pastes one square patch into each square image, grey or RGB; returns images and masks of what this changed."""
    chance = np.random.default_rng(0)
    images, masks = images.copy(), np.zeros(images.shape[:3], bool)
    size, side = patches.shape[1], images.shape[1]
    for image, mask, patch in zip(images, masks, patches):
        top, left = chance.integers(0, side - size + 1, 2)
        area = np.s_[top : top + size, left : left + size]
        change = np.abs(image[area].astype(int) - patch)
        mask[area] = change.reshape(size, size, -1).max(axis=2) >= LEAST_CHANGE
        image[area] = patch
    return images, masks


def anomaly_maps(evaluations, images):
    """Maps ``(N, 32, 32)`` by name, higher where more unusual, from one pass of the network."""
    whole = evaluations.trajectory(images)
    parts = []
    for k in range(0, len(images), _CHUNK):
        chunk = slice(k, k + _CHUNK)
        path = Trajectory(whole.score_error[chunk], whole.reconstruction[chunk])
        parts.append(_maps(to_network_scale(images[chunk]), path, evaluations.time))
    maps = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    grey = images.astype(float).mean(axis=3)
    deviation = [np.sqrt(np.maximum(uniform_filter(g * g, 7) - uniform_filter(g, 7) ** 2, 0)) for g in grey]
    return {**maps, "local contrast": np.stack(deviation)}


def evidence_of(evaluations, images):
    """Local evidence, float16 ``(N, K, 16, 16)``, as ``DiffPathResult.local`` has it."""
    whole, parts = evaluations.trajectory(images), []
    for k in range(0, len(images), _CHUNK):
        chunk = slice(k, k + _CHUNK)
        originals = to_network_scale(images[chunk])[:, None, None]
        moments = LocalMoments(originals, whole.reconstruction[chunk], window=7, sigma=None)
        parts.append(local_evidence(whole.score_error[chunk], moments.dissimilarity(HEATMAP_C)).half().numpy())
    return np.concatenate(parts)


def from_reference(local, evidence):
    """The anomaly map, and what of it is drawn."""
    maps = local.maps(evidence)
    return {"anomaly map": maps, "anomaly map, visible": np.clip(maps, *MAPS["anomaly_map"].scale)}


def z_scored(maps, reference):
    """Maps as robust deviations from what is usual at each pixel of the reference's maps."""
    centre = np.median(reference, axis=0)
    spread = np.median(np.abs(reference - centre), axis=0) / 0.6745
    return (maps - centre) / (spread + np.median(spread))


def pooled_auroc(masks, maps):
    """The AUROC of the masks' pixels over all images together."""
    return float(roc_auc_score(np.asarray(masks).ravel(), np.asarray(maps).ravel()))


def pixel_auroc(masks, maps):
    """Mean over images of the AUROC of the mask's pixels."""
    return float(np.mean([roc_auc_score(m.ravel(), a.ravel()) for m, a in zip(masks, maps) if 0 < m.sum() < m.size]))


def region_overlap(masks, maps):
    """PRO: mean share of each connected region above a threshold, over false-positive rates up to 0.3, in [0, 1]."""
    regions = [
        (k, labels == n) for k, mask in enumerate(masks) for labels, count in [label(mask)] for n in range(1, count + 1)
    ]
    negatives = np.sort(maps[~masks])[::-1]
    rates = np.linspace(0, MOST_FALSE_POSITIVES, 101)
    thresholds = negatives[np.minimum((rates * len(negatives)).astype(int), len(negatives) - 1)]
    overlap = [np.mean([(maps[k][region] > threshold).mean() for k, region in regions]) for threshold in thresholds]
    return float(trapezoid(overlap, rates) / MOST_FALSE_POSITIVES)


def _maps(images, path, time):
    """The library's two maps, 1 − SSIM over all timesteps with several constants, and the plain squared error."""
    moments = LocalMoments(images[:, None, None], path.reconstruction, window=7, sigma=None)
    maps = {"heatmap": heatmaps(moments.dissimilarity(HEATMAP_C), time), "error map": error_maps(path.score_error)}
    for name, c in {**CONSTANTS, "1": HEATMAP_C}.items():
        maps[f"1 − SSIM over all timesteps, {name}"] = moments.dissimilarity(c).mean(dim=(1, 2))
    maps["squared error, 7×7"] = local_mean(path.score_error.square().mean(dim=(1, 2, 3)), 7)
    return {name: values.numpy() for name, values in maps.items()}


def measure(evaluations, grounds=GROUNDS, patches=("drawings", "noise"), count=30):
    """What every map is worth, of the first split.

    Returns:
        (ground, patch, map) -> {"auroc", "pooled", "pro"}; and (ground, map) -> {other ground: AUROC of
        its test images by the map's mean}, and "with the score": Spearman's correlation of the two over all of them
    """
    rows, ranked = {}, {}
    evidence = {ground: evidence_of(evaluations, load_set(ground).images) for ground in grounds}
    usual = {ground: anomaly_maps(evaluations, load_set(ground).images) for ground in grounds}
    default = METHODS["diffpath, default"]
    descriptors = {ground: default.features(evaluations, load_set(ground).images) for ground in grounds}
    for ground in grounds:
        inside = load_set(ground)
        fit = split(inside.sources, 0)["fit"]
        local = LocalReference.fit(evidence[ground][fit], inside.sources[fit])
        for patch in patches:
            images, masks = pasted_patches(ground, patch, count)
            maps = anomaly_maps(evaluations, images)
            for name in Z_SCORED:
                maps[f"{name}, z-scored"] = z_scored(maps[name], usual[ground][name][fit])
            maps |= from_reference(local, evidence_of(evaluations, images))
            for name, values in maps.items():
                rows[ground, patch, name] = {
                    "auroc": pixel_auroc(masks, values),
                    "pooled": pooled_auroc(masks, values),
                    "pro": region_overlap(masks, values),
                }
        means, scores = {}, {}
        detector = default.detector(0).fit(descriptors[ground][fit])
        for other in grounds:
            made = load_set(other)
            test = split(made.sources, 0)["test"]
            maps = {name: usual[other][name][test] for name in Z_SCORED}
            maps |= from_reference(local, evidence[other][test])
            means[other] = {name: values.mean(axis=(1, 2)) for name, values in maps.items()}
            scores[other] = detector.score_samples(descriptors[other][test])
        every_score = np.concatenate(list(scores.values()))
        for name, own in means[ground].items():
            every_mean = np.concatenate([means[other][name] for other in grounds])
            ranked[ground, name] = {
                "with the score": float(spearmanr(every_mean, every_score)[0]),
                **{other: metrics(own, means[other][name])["auroc"] for other in grounds if other != ground},
            }
    return rows, ranked
