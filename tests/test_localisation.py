"""The heatmap points at what is wrong: pasted patches with known masks on real images."""

import numpy as np
import pytest
from conftest import read_demo
from PIL import Image
from sklearn.metrics import roc_auc_score

from benchmarks.localisation import paste
from diffpath import DiffPathV2

SIZE, PATCH, COUNT = 32, 12, 20


def resize(images, size):
    return np.stack([np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BOX)) for image in images])


def pixel_auroc(images, patches):
    pasted, masks = paste(images, patches)
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
