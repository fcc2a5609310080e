"""The maps point at what is wrong: pasted patches with known masks on real images."""

import numpy as np
import pytest
from conftest import read_demo
from PIL import Image
from sklearn.metrics import roc_auc_score

from benchmarks.accuracy.localisation import paste
from diffpath import DiffPathV2

SIZE, PATCH, COUNT = 32, 12, 20


def resize(images, size):
    return np.stack([np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BOX)) for image in images])


def pixel_aurocs(images, patches):
    """Of the heatmap and of the error map."""
    pasted, masks = paste(images, patches)
    result = DiffPathV2().score_images(pasted)
    return [
        np.mean([roc_auc_score(mask.ravel(), values.ravel()) for mask, values in zip(masks, maps)])
        for maps in (result.heatmaps, result.error_maps)
    ]


@pytest.fixture(scope="module")
def both_measured():
    noise = np.random.default_rng(1).integers(0, 256, (COUNT, PATCH, PATCH), dtype=np.uint8)
    patches = {"drawings": resize(read_demo("drawings", COUNT), PATCH), "noise": noise}
    grounds = {kind: resize(read_demo(kind, COUNT), SIZE) for kind in ("clean", "photos")}
    return {
        (ground, patch): pixel_aurocs(images, pasted)
        for ground, images in grounds.items()
        for patch, pasted in patches.items()
    }


@pytest.fixture(scope="module")
def measured(both_measured):
    return {case: heatmap for case, (heatmap, _) in both_measured.items()}


def test_the_error_map_finds_drawings_better_than_the_heatmap_and_noise_as_well(both_measured):
    for (ground, patch), (heatmap, error_map) in both_measured.items():
        assert error_map > (heatmap + 0.01 if patch == "drawings" else 0.97), (ground, patch, both_measured)
    assert np.mean([error_map for _, error_map in both_measured.values()]) >= 0.93, both_measured


def test_the_heatmap_is_high_on_pasted_patches_on_average(measured):
    assert np.mean(list(measured.values())) >= 0.9, measured


def test_the_heatmap_is_high_on_drawings_pasted_into_photos(measured):
    assert measured["photos", "drawings"] >= 0.9, measured


def test_no_kind_of_patch_is_missed(measured):
    assert min(measured.values()) > 0.75, measured
