"""The accuracy benchmark: its peers against closed forms, its splits, metrics, corruptions and maps."""

import io
from itertools import permutations

import numpy as np
import pytest
import torch
from conftest import read_demo
from PIL import Image

import benchmarks.accuracy.__main__ as benchmark
from benchmarks.accuracy import large, peers, report, solar
from benchmarks.accuracy.bounds import flagged_shares, supervised_corruptions, supervised_pairs
from benchmarks.accuracy.corruptions import CORRUPTIONS, FAMILIES, SEVERITIES, corrupt
from benchmarks.accuracy.datasets import split
from benchmarks.accuracy.descriptors import default_descriptor, descriptor, statistics
from benchmarks.accuracy.evaluations import Evaluations, load_predictor, random_weights
from benchmarks.accuracy.given import load_folder
from benchmarks.accuracy.localisation import pixel_auroc, region_overlap, z_scored
from benchmarks.accuracy.methods import DEFAULT, PAPER
from benchmarks.accuracy.protocol import metrics, run_pairs, summary
from diffpath import AnomalyDetector, DiffPathV2
from diffpath.images import prepare_image
from diffpath.method.trajectory import spaced_timesteps
from diffpath.models import NoisePredictor

STEPS = 1000
BETAS = np.linspace(1e-4, 0.02, STEPS)
ALPHAS = torch.tensor(np.cumprod(1 - BETAS), dtype=torch.float32)
DEVIATION = 0.5


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFPATH_BENCHMARK_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def clothing():
    """Twelve clothing images, uint8 ``(12, 32, 32, 3)``."""
    large = [np.asarray(Image.fromarray(image).resize((32, 32))) for image in read_demo("clean", 12)]
    return np.repeat(np.stack(large)[..., None], 3, axis=3)


def gaussian_model():
    """The exact denoiser of images with independent N(0, DEVIATION²) pixels: ε̂ = √(1−ᾱ) x / (ᾱ s² + 1 − ᾱ)."""

    def network(noisy, timesteps):
        alpha = ALPHAS[timesteps].view(-1, 1, 1, 1)
        return (1 - alpha).sqrt() * noisy / (alpha * DEVIATION**2 + 1 - alpha)

    return NoisePredictor(network, ALPHAS)


def point_model(point):
    """The exact denoiser of a data set with one image: it always reconstructs that image."""
    calls = []

    def network(noisy, timesteps):
        calls.append(len(noisy))
        alpha = ALPHAS[timesteps].view(-1, 1, 1, 1)
        return (noisy - alpha.sqrt() * point) / (1 - alpha).sqrt()

    return NoisePredictor(network, ALPHAS), calls


# Peers


def test_ddim_inversion_follows_the_exact_path_of_a_gaussian():
    """The probability-flow path of N(0, s²) is x_t = x₀ √((ᾱ_t s² + 1 − ᾱ_t) / (ᾱ_0 s² + 1 − ᾱ_0))."""
    images = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * DEVIATION
    timesteps = spaced_timesteps(500, (0.0, 0.9), STEPS)
    path = peers.ddim_inversion(gaussian_model(), images, timesteps, clip=False)
    variance = (ALPHAS * DEVIATION**2 + 1 - ALPHAS)[timesteps]
    exact_x = images[:, None] * (variance / variance[0]).sqrt().view(1, -1, 1, 1, 1)
    exact = (1 - ALPHAS[timesteps]).sqrt().view(1, -1, 1, 1, 1) * exact_x / variance.view(1, -1, 1, 1, 1)
    assert torch.allclose(path, exact, rtol=0.01, atol=1e-3)


def test_ddim_inversion_clips_the_reconstruction():
    images = torch.full((1, 1, 2, 2), 0.9)
    predictor, _ = point_model(3.0)  # reconstructs 3, outside the range of images
    timesteps = spaced_timesteps(4, (0.1, 0.9), STEPS)
    first = peers.ddim_inversion(predictor, images, timesteps)[:, 0]
    alpha = ALPHAS[timesteps[0]]
    assert torch.allclose(first, (images - alpha.sqrt()) / (1 - alpha).sqrt())


def test_diffpath_statistics_are_sums_of_powers_and_of_rates():
    path = np.random.default_rng(0).normal(size=(3, 10, 1, 4, 4))
    rate = np.diff(path, axis=1) * 10
    expected = [(v**p).sum(axis=(1, 2, 3, 4)) for v in (path, rate) for p in (1, 2, 3)]
    assert np.allclose(peers.diffpath_statistics(torch.from_numpy(path)), np.stack(expected, axis=1))


def test_score_norms_of_a_gaussian_are_those_of_its_score():
    """∇ log N(0, ᾱ s² + 1 − ᾱ) at √ᾱ x₀ has the norm √ᾱ ‖x₀‖ / (ᾱ s² + 1 − ᾱ)."""
    images = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    timesteps = spaced_timesteps(5, (0.1, 0.9), STEPS)
    alphas = ALPHAS[timesteps]
    exact = images.flatten(1).norm(dim=1)[:, None] * alphas.sqrt() / (alphas * DEVIATION**2 + 1 - alphas)
    assert torch.allclose(peers.score_norms(gaussian_model(), images, timesteps), exact, rtol=1e-4)


def test_reconstructions_by_the_model_of_one_image_are_that_image():
    point = torch.linspace(-0.5, 0.5, 64).view(1, 1, 8, 8)
    predictor, calls = point_model(point)
    images = torch.cat([point, point + 0.25])
    errors = peers.reconstruction_errors(predictor, images, torch.randn(1, 8, 8))
    assert errors.shape == (2, 8)
    assert torch.allclose(errors[0], torch.zeros(8), atol=1e-4)
    assert torch.allclose(errors[1, ::2], torch.full((4,), 0.25**2), atol=1e-4)
    assert len(calls) == 10  # evaluations per image


def test_image_quality_agrees_with_opencv_and_pillow(photos):
    cv2 = pytest.importorskip("cv2")
    image = photos[0]
    brightness, blur, contrast, saturation, _ = peers.image_quality(image[None])[0]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    assert blur == pytest.approx(cv2.Laplacian(grey, cv2.CV_64F).var(), rel=0.02)
    assert contrast == pytest.approx(np.ptp(grey.astype(int)), abs=2)
    assert saturation == pytest.approx(cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[:, :, 1].mean(), rel=0.01)
    red, green, blue = image.reshape(-1, 3).mean(axis=0)
    assert brightness == pytest.approx((0.241 * red**2 + 0.691 * green**2 + 0.068 * blue**2) ** 0.5 / 255)


def test_mixtures_find_what_lies_between_two_clusters():
    rng = np.random.default_rng(0)
    clusters = np.concatenate([rng.normal(-5, 1, (100, 2)), rng.normal(5, 1, (100, 2))])
    detector = peers.MixtureDetector(0).fit(clusters)
    between, inside = detector.score_samples(np.array([[0.0, 0.0], [5.0, 5.0]]))
    assert between > inside


def test_mixtures_have_many_components_only_where_each_has_ten_images():
    X = np.random.default_rng(0).normal(size=(500, 1))
    tried = [
        max(peers.MixtureDetector(0).fit(some).fitted_.cv_results_["param_mixture__n_components"])
        for some in (X[:499], X)
    ]
    assert tried == [10, 50]


def test_the_mean_z_score_is_one_sided_and_the_largest_is_not():
    X = np.random.default_rng(0).normal(size=(500, 3))
    low, high = np.full((1, 3), -4.0), np.full((1, 3), 4.0)
    one_sided, two_sided = peers.MeanZScore().fit(X), peers.LargestZScore().fit(X)
    assert one_sided.score_samples(high) > one_sided.score_samples(low)
    assert two_sided.score_samples(low) > 3 and two_sided.score_samples(high) > 3


# The library's own descriptor


@pytest.mark.parametrize("preset, names", [("default", DEFAULT), ("paper", PAPER)])
def test_the_benchmark_measures_the_descriptor_of_the_library(cache, clothing, method, preset, names):
    library = DiffPathV2(method.predictor, preset=preset).score_images(clothing).descriptor
    measured = descriptor(statistics(Evaluations(method.predictor), clothing), names)
    tolerance = 0.01 * library.std(axis=0) + 1e-6  # score errors are kept in float16
    assert measured.shape == library.shape
    assert (np.abs(measured - library) <= tolerance + 2e-3 * np.abs(library)).all()


@pytest.mark.parametrize(
    "options, evaluations",
    [
        (dict(num_noise_draws=2, num_timesteps=3), dict(draws=(0, 1), num_timesteps=3)),
        (dict(resolution=64, tile=32, tile_overlap=0, num_timesteps=2), dict(resolution=64, tile=32, num_timesteps=2)),
    ],
    ids=["draws", "tiles"],
)
def test_draws_and_tiles_are_those_of_the_library(cache, clothing, method, options, evaluations):
    images = clothing[:4]
    if side := options.get("resolution"):
        images = np.stack([prepare_image(Image.fromarray(image), side) for image in images])
    library = DiffPathV2(method.predictor, **options).score_images(images).descriptor
    measured = default_descriptor(Evaluations(method.predictor, **evaluations), images)
    assert np.allclose(measured, library, rtol=5e-3, atol=2e-3)


def test_a_larger_view_is_that_of_the_library(cache, method):
    from skimage import data

    photo = Image.fromarray(data.astronaut())
    images = np.stack([prepare_image(photo.crop((x, 0, x + 256, 256)), 224) for x in (0, 128, 256)])
    library = DiffPathV2(method.predictor, zoom=3).score_images(images).descriptor
    measured = large.methods(method.predictor)
    whole, both = (measured[name].features(images) for name in ("diffpath, default", "diffpath, zoom=3"))
    assert np.allclose(both, library, rtol=5e-3, atol=2e-3)
    assert np.array_equal(both[:, : whole.shape[1]], whole)


def test_a_mirrored_draw_is_the_first_with_its_sign_changed(method):
    pair = Evaluations(method.predictor, draws=(0, "-0")).noise
    assert torch.equal(pair[1], -pair[0])


def test_each_tile_has_the_descriptor_of_its_own_errors(cache, clothing, method):
    """Four copies of one picture, each given the noise of its place, and each told from the others."""
    images = np.tile(clothing[:2], (1, 2, 2, 1))
    evaluations = Evaluations(method.predictor, num_timesteps=2, resolution=64, tile=32)
    tiles = solar.tile_descriptors(evaluations, images)
    assert tiles.shape[:2] == (2, 4)
    corner = Evaluations(method.predictor, num_timesteps=2)
    corner.noise, corner.keys, corner.key = evaluations.noise[:, :, :32, 32:], ["corner"], "corner"
    assert np.allclose(tiles[:, 1], default_descriptor(corner, clothing[:2]), rtol=5e-3, atol=2e-3)


def test_cells_are_judged_by_their_own_type():
    """Two types far apart; what lies where one type is usual and is of the other is anomalous."""
    rng = np.random.default_rng(0)
    types = np.repeat(["mono", "poly"], 50)
    functional = rng.normal(0, 1, (100, 2)) + np.where(types == "poly", 50, 0)[:, None]
    parts = split(np.arange(100).astype(str), 0)
    good, bad = solar.scores_by_type(
        lambda seed: AnomalyDetector(random_state=seed),
        0,
        (functional, np.array([[50.0, 50.0], [50.0, 50.0]])),
        (types, np.array(["mono", "poly"])),
        parts,
    )
    assert bad[0] > good[parts["test"]].max() > bad[1]


def test_untrained_weights_have_the_shape_of_the_bundled_ones_and_are_fixed_by_their_seed(cache, method):
    folder = random_weights()
    predictor = load_predictor(folder)
    assert predictor.fingerprint != method.predictor.fingerprint
    assert torch.equal(predictor.alphas_cumprod, method.predictor.alphas_cumprod)
    assert random_weights() == folder


def test_evaluations_are_made_once(cache, clothing, method, monkeypatch):
    evaluations = Evaluations(method.predictor, num_timesteps=2)
    first = evaluations.score_errors(clothing)
    monkeypatch.setattr(Evaluations, "_evaluate", lambda *_: pytest.fail("evaluated again"))
    assert (Evaluations(method.predictor, num_timesteps=2).score_errors(clothing) == first).all()


def test_other_timesteps_are_not_read_from_the_cache(cache, clothing, method):
    early = Evaluations(method.predictor, num_timesteps=2, timestep_range=(0.0, 0.1)).score_errors(clothing[:2])
    late = Evaluations(method.predictor, num_timesteps=2, timestep_range=(0.8, 0.9)).score_errors(clothing[:2])
    assert np.abs(early - late).max() > 0.1


# Sets, splits and metrics


def test_images_of_one_file_stay_on_one_side_of_every_split():
    sources = np.array([f"file {k // 7}" for k in range(300)])
    for seed in range(3):
        parts = split(sources, seed)
        files = [set(sources[indices]) for indices in parts.values()]
        assert not (files[0] & files[1] or files[0] & files[2] or files[1] & files[2])
        assert np.array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(300))
        assert abs(len(parts["fit"]) - 150) <= 7 and abs(len(parts["test"]) - 90) <= 14


def test_splits_differ_by_seed_and_only_by_seed():
    sources = np.array([str(k) for k in range(100)])
    assert np.array_equal(split(sources, 1)["fit"], split(sources, 1)["fit"])
    assert not np.array_equal(split(sources, 1)["fit"], split(sources, 2)["fit"])


def test_a_folder_of_the_user_is_read_through_the_same_resampling(tmp_path, photos):
    for k, photo in enumerate(photos):
        Image.fromarray(photo).save(tmp_path / f"{k}.png")
    made = load_folder(tmp_path)
    assert made.images.shape == (len(photos), 32, 32, 3)
    with pytest.raises(ValueError, match="holds no image files"):
        load_folder(tmp_path / "missing")


def test_metrics_have_their_values_by_hand():
    """Anomalies at 2 and 4 among normals at 1 and 3: three of the four pairs are in order."""
    measured = metrics(np.array([1.0, 3.0]), np.array([2.0, 4.0]))
    assert measured["auroc"] == 0.75
    assert measured["fpr95"] == 0.5
    assert measured["aupr_ood"] == pytest.approx((1 + 2 / 3) / 2)


def test_each_command_of_all_has_arguments_of_its_own(monkeypatch, tmp_path):
    """What one command sets for itself, such as its only seed, is not the next one's."""
    seen = {}

    def record(name):
        def command(arguments):
            seen[name] = (list(arguments.seeds), arguments.sets)
            arguments.seeds, arguments.sets = [0], "all"

        return command

    monkeypatch.setattr(benchmark, "COMMANDS", {name: record(name) for name in benchmark.COMMANDS})
    assert benchmark.main(["all", "--seeds", "1", "2", "--output", str(tmp_path)]) == 0
    assert set(seen) == set(benchmark.ALL)
    assert all(arguments == ([1, 2], "development") for arguments in seen.values())


def test_a_table_of_one_seed_has_no_deviation(tmp_path):
    provenance = {"command": "c", "model": "m", "fingerprint": "f", "seeds": [0], "sets": {}}
    rows = {("32", (3, 2), "reading"): {"development": [0.5], "test": [0.75]}}
    report.write_solar(tmp_path, rows, provenance)
    assert "| 32 | 3 / 2 | reading | 0.500 | **0.750** |" in (tmp_path / "solar.md").read_text()
    two = {("32", (3, 2), "reading"): {"development": [0.5, 0.7], "test": [0.75, 0.75]}}
    report.write_solar(tmp_path, two, provenance)
    assert "| 0.600 ± 0.141 | **0.750 ± 0.000** |" in (tmp_path / "solar.md").read_text()


def test_a_table_of_corruptions_has_a_row_for_each_method_that_was_measured_on_all_kinds(tmp_path):
    provenance = {"command": "c", "model": "m", "fingerprint": "f", "seeds": [0], "sets": {}}
    rows = {("b", kind, 3, "ours"): {"auroc": value} for kind, value in (("noise", 0.5), ("blur", 1.0))}
    rows |= {("a", "noise", 3, "ours"): {"auroc": 0.25}, ("a", "blur", 3, "ours"): {"auroc": 0.25}}
    rows |= {("a", "noise", 3, "theirs"): {"auroc": 0.5}}
    report.write_corruptions(tmp_path, "corruptions", rows, {3: 10}, provenance)
    assert (tmp_path / "corruptions.md").read_text().splitlines()[4:] == [
        "## Severity 3, AUROC, 10 images of each kind",
        "",
        "| set | method | average | noise | blur |",
        "|---|---|---|---|---|",
        "| b | ours | **0.750** | 0.500 | 1.000 |",
        "| a | ours | **0.250** | 0.250 | 0.250 |",
    ]


def test_pairs_are_ordered_and_their_minimum_is_named():
    rng = np.random.default_rng(0)
    features = {name: rng.normal(place, 1, (100, 2)) for name, place in {"a": 0, "b": 0.5, "c": 9}.items()}
    splits = {(name, seed): split(np.arange(100).astype(str), seed) for name in features for seed in (0, 1)}
    results = run_pairs(features, splits, lambda seed: peers.MeanZScore(), permutations(features, 2), seeds=(0, 1))
    figures = summary(results)
    assert len(results) == 6 and all(len(runs) == 2 for runs in results.values())
    assert figures["worst_pair"] == ("c", "a")  # one-sided: a lies far below c
    assert figures["average"] == pytest.approx(np.mean([r["auroc"] for runs in results.values() for r in runs]))


def test_a_classifier_that_sees_both_sets_tells_apart_what_a_detector_cannot():
    """One set lies within the other, and where it lies is known only to who has seen it."""
    rng = np.random.default_rng(0)
    features = {"wide": rng.normal(size=(300, 3)), "within": 0.1 * rng.normal(size=(300, 3)) + 0.3}
    splits = {(name, 0): split(np.arange(300).astype(str), 0) for name in features}
    pairs = [("wide", "within")]
    alone = run_pairs(features, splits, lambda seed: AnomalyDetector(), pairs, (0,))
    both = supervised_pairs(features, splits, pairs, (0,))
    assert alone["wide", "within"][0]["auroc"] < 0.3 and both["wide", "within"][0]["auroc"] > 0.95


def test_a_classifier_of_corruptions_knows_those_that_it_was_shown_and_each_has_a_family():
    rng = np.random.default_rng(2)
    shifts = {"a": (2, 0, 0), "b": (0, 2, 0), "c": (-2, 0, 0)}
    clean, normal = rng.normal(size=(200, 3)), rng.normal(size=(200, 3))
    corrupted, asked = ({kind: rng.normal(size=(100, 3)) + shift for kind, shift in shifts.items()} for _ in range(2))
    test = {kind: (normal, anomalies) for kind, anomalies in asked.items()}
    own = supervised_corruptions(clean, corrupted, test, lambda kind: [kind])
    other = supervised_corruptions(clean, corrupted, test, lambda kind: ["a" if kind == "c" else "c"])
    assert min(own.values()) > 0.85 and max(other["a"], other["c"]) < 0.6
    assert sorted(kind for kinds in FAMILIES.values() for kind in kinds) == sorted(CORRUPTIONS)


def test_flagged_shares_are_those_of_test_images_without_groups_and_with_them():
    rng = np.random.default_rng(1)
    sources = np.repeat(np.arange(60), 5).astype(str)
    X = np.repeat(rng.normal(size=(60, 3)), 5, axis=0) + 0.02 * rng.normal(size=(300, 3))
    splits = {seed: split(sources, seed) for seed in range(3)}
    plain, grouped = flagged_shares(X, sources, splits, lambda seed: AnomalyDetector(random_state=seed), range(3))
    assert plain > 0.4 and grouped < 0.15


# Corruptions


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_corruption_is_fixed_by_its_seed_and_strong_ones_change_more(kind, clothing):
    change = [
        np.abs(corrupt(clothing[:4], kind, severity).astype(int) - clothing[:4]).mean() for severity in SEVERITIES
    ]
    # The severest elastic transform bends more and moves less, in CIFAR-10-C too
    assert change[0] > 0 and (change[4] > change[0] or kind == "elastic transform")
    assert np.array_equal(corrupt(clothing[:2], kind, 3), corrupt(clothing[:2], kind, 3))


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_large_picture_is_corrupted_over_the_lengths_of_imagenet_c(kind):
    from skimage import data

    picture = prepare_image(Image.fromarray(data.astronaut()), 224)
    corrupted = corrupt(picture[None], kind, 3)[0]
    assert corrupted.shape == picture.shape
    change = np.abs(corrupted.astype(int) - picture).mean()
    assert 4 < change < 110


def test_blurs_reach_further_in_large_pictures():
    for kind, small, full in (("defocus blur", 1, 6), ("motion blur", 4, 8), ("glass blur", 1, 2)):
        for side, reach in ((32, small), (224, full)):
            dot = np.zeros((1, side, side, 3), np.uint8)
            dot[:, side // 2, side // 2] = 255
            rows, columns = np.nonzero(corrupt(dot, kind, 3)[0, :, :, 0])
            assert max(np.abs(rows - side // 2).max(), np.abs(columns - side // 2).max()) >= reach


def test_noise_and_contrast_have_the_strength_of_imagenet_c():
    grey = np.full((4, 32, 32, 3), 128, np.uint8)
    assert corrupt(grey, "Gaussian noise", 3).std() / 255 == pytest.approx(0.18, rel=0.03)
    ramp = np.tile(np.linspace(0, 255, 32).astype(np.uint8)[None, :, None], (32, 1, 3))[None]
    assert np.ptp(corrupt(ramp, "contrast", 4).astype(int)) == pytest.approx(0.1 * 255, abs=1)


def test_jpeg_is_that_of_pillow(clothing):
    buffer = io.BytesIO()
    Image.fromarray(clothing[0]).save(buffer, "JPEG", quality=15)
    assert np.array_equal(corrupt(clothing[:1], "JPEG", 3)[0], np.asarray(Image.open(buffer)))


# Localisation


def test_a_perfect_map_has_the_full_overlap_and_a_random_one_that_of_chance():
    """At chance a region's overlap equals the false-positive rate, whose mean up to 0.3 is 0.15."""
    masks = np.zeros((20, 32, 32), bool)
    masks[:, 4:14, 8:18] = True
    assert region_overlap(masks, masks.astype(float)) == pytest.approx(1)
    noise = np.random.default_rng(0).random(masks.shape)
    assert region_overlap(masks, noise) == pytest.approx(0.15, abs=0.02)
    assert pixel_auroc(masks, noise) == pytest.approx(0.5, abs=0.05)


def test_z_scores_take_away_what_is_usual_at_a_place():
    rng = np.random.default_rng(0)
    usual = 5 * np.linspace(0, 1, 32)[None, :, None] + rng.normal(size=(200, 32, 32))
    scored = z_scored(usual, usual)
    assert abs(scored.mean(axis=(0, 2))).max() < 0.2
