"""The heatmap points at what is wrong: pasted patches with known masks on real images."""

import numpy as np
import pytest
from conftest import read_demo
from PIL import Image
from sklearn.metrics import roc_auc_score

from diffpath import DiffPathV2

SIZE, PATCH, COUNT = 32, 12, 20
LEAST_CHANGE = 10  # grey levels; a drawing's black background changes nothing where clothing's is black too


def resize(images, size):
    return np.stack([np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BOX)) for image in images])


def paste(images, patches, seed):
    """Pastes one patch into each image at a seeded place; returns images and masks of what this changed."""
    rng = np.random.default_rng(seed)
    images, masks = images.copy(), np.zeros(images.shape, bool)
    for image, mask, patch in zip(images, masks, patches):
        top, left = rng.integers(0, SIZE - PATCH + 1, 2)
        area = np.s_[top : top + PATCH, left : left + PATCH]
        mask[area] = np.abs(image[area].astype(int) - patch) >= LEAST_CHANGE
        image[area] = patch
    return images, masks


def pixel_auroc(images, patches, seed=0):
    pasted, masks = paste(images, patches, seed)
    heatmaps = DiffPathV2().score_images(pasted).heatmaps
    return np.mean([roc_auc_score(mask.ravel(), heatmap.ravel()) for mask, heatmap in zip(masks, heatmaps)])


@pytest.fixture(scope="module")
def measured():
    noise = np.random.default_rng(1).integers(0, 256, (COUNT, PATCH, PATCH), dtype=np.uint8)
    patches = {"drawings": resize(read_demo("drawings", COUNT), PATCH), "noise": noise}
    grounds = {kind: resize(read_demo(kind, COUNT), SIZE) for kind in ("clean", "photos")}
    return {
        (ground, patch): pixel_auroc(images, pasted)
        for ground, images in grounds.items()
        for patch, pasted in patches.items()
    }


def test_the_heatmap_is_high_on_pasted_patches_on_average(measured):
    assert np.mean(list(measured.values())) >= 0.85, measured


def test_the_heatmap_is_high_on_drawings_pasted_into_photos(measured):
    assert measured["photos", "drawings"] >= 0.85, measured


def test_no_kind_of_patch_is_missed(measured):
    assert min(measured.values()) > 0.75, measured
