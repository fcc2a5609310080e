"""The papers' pairs: the command on folders and zoo sets of small real images that stand in for theirs."""

import json
import re
import sys
from types import SimpleNamespace

import fiftyone as fo
import fiftyone.zoo.datasets.torch as zoo_torch
import numpy as np
import pytest
from conftest import ROOT, read_demo
from PIL import Image

from benchmarks.accuracy.__main__ import main
from benchmarks.accuracy.given import SetError, folder_files, load_zoo, zoo_files
from benchmarks.accuracy.paper import PAIRS, given_files, not_run, prepare, read_set, runnable
from diffpath.images import prepare_image

ALL_SETS = ("cifar10", "svhn", "celeba", "cifar100", "textures")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFPATH_BENCHMARK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def make_folder(tmp_path):
    """Makes a folder of links to demo images: ``make_folder(name, train=(kind, count, skip), test=…)``."""

    def make(name, **parts):
        for part, (kind, count, skip) in parts.items():
            folder = tmp_path / name / ("" if part == "directly" else part)
            folder.mkdir(parents=True, exist_ok=True)
            paths = sorted((ROOT / "demo" / "data" / kind).glob("*.png"))[skip : skip + count]
            assert len(paths) == count
            for path in paths:
                (folder / f"{kind} {path.name}").symlink_to(path)
        return tmp_path / name

    return make


@pytest.fixture
def run(tmp_path):
    """Runs the command with its tables in a folder, and returns the table of a title."""

    def call(*arguments, title):
        assert main(["paper", "--output", str(tmp_path / "results"), *map(str, arguments)]) == 0
        table = (tmp_path / "results" / f"{title}.md").read_text()
        return table, json.loads((tmp_path / "results" / f"{title}.json").read_text())

    return call


# The command


def test_the_detector_is_fitted_on_the_training_split_and_on_nothing_else(make_folder, run):
    """Its own test split holds digits, the other set clothing as in training: only a fit on digits would be right."""
    swapped = make_folder("swapped", train=("reference", 24, 0), test=("digits", 12, 0))
    clothing = make_folder("clothing", test=("clean", 12, 0))
    methods = ("--methods", "diffpath, six features", "raw pixels")
    table, stored = run(
        "--folder", f"cifar10={swapped}", f"textures={clothing}", *methods, "--seeds", 0, 1, title="paper"
    )
    for name, row in stored["methods"].items():
        assert max(made["auroc"] for made in row["results"]["CIFAR-10 → Textures"]) < 0.3, name
    assert "CIFAR-10 (24 of 24 training and 12 of 12 test images, .png)" in table


def test_every_pair_is_a_column_or_named_with_the_set_that_it_lacks(make_folder, run):
    given = (
        f"cifar10={make_folder('a', train=('reference', 30, 0), test=('clean', 12, 0))}",
        f"svhn={make_folder('b', test=('digits', 12, 0))}",
        f"cifar100={make_folder('c', directly=('drawings', 12, 0))}",
    )
    methods = ("raw pixels", "HOG and LBP")
    table, stored = run("--folder", *given, "--methods", *methods, "--seeds", 0, "--count", 10, title="paper-10")
    assert "| method | evaluations | average | CIFAR-10 → SVHN | CIFAR-10 → CIFAR-100 |" in table
    assert "Ran: 2 of 12 pairs" in table
    assert "- Not run, CelebA and Textures not given: CelebA → Textures\n" in table
    assert "- Not run, no training split of SVHN: SVHN → CIFAR-10, SVHN → CIFAR-100\n" in table
    named = [pair for pairs in stored["not_run"].values() for pair in pairs]
    assert len(named) == len(set(named)) == 10
    assert not set(named) & set(stored["methods"]["raw pixels"]["results"])
    assert [line.split(" | ")[0] for line in table.splitlines()[-2:]] == [f"| {name}" for name in methods]
    assert "10 of 30 training and 10 of 12 test images" in table


def test_figures_are_those_of_a_nearest_neighbour_search_by_hand(make_folder, run):
    folders = {
        "svhn": make_folder("a", train=("reference", 30, 0), test=("clean", 15, 0)),
        "cifar10": make_folder("b", test=("emoji", 15, 0)),
    }
    given = [f"{name}={folder}" for name, folder in folders.items()]
    _, stored = run("--folder", *given, "--methods", "raw pixels", "--seeds", 0, "--count", 0, title="paper-all")
    fitted, normal, other = (
        np.stack([prepare_image(Image.fromarray(image), 32) for image in read_demo(kind, count)]).reshape(count, -1)
        / 255.0
        for kind, count in (("reference", 30), ("clean", 15), ("emoji", 15))
    )
    scores = [
        np.sort(np.linalg.norm(fitted[None] - images[:, None], axis=2), axis=1)[:, :5].mean(axis=1)
        for images in (normal, other)
    ]
    expected = (scores[1][:, None] > scores[0][None]).mean()
    assert stored["methods"]["raw pixels"]["results"]["SVHN → CIFAR-10"][0]["auroc"] == pytest.approx(
        expected, abs=1e-4
    )


@pytest.mark.parametrize(
    "arguments, said",
    [
        ((), "got none"),
        (("--folder", "cifar10={clothing}"), "got cifar10: give sets with --folder NAME=PATH or --zoo"),
        (("--folder", "cifar100={clothing}", "textures={clothing}"), "got cifar100, textures"),
        (("--folder", "cifar10={digits}", "textures={digits}"), r"got cifar10 \(test split only\), textures"),
        (("--folder", "mnist={digits}", "cifar10={clothing}"), "mnist is none of the papers' sets"),
        (("--folder", "cifar10={digits}", "cifar10={clothing}"), "cifar10 was given more than once"),
        (("--folder", "cifar10={clothing}", "svhn=nowhere"), "nowhere holds no image files"),
    ],
    ids=["nothing", "one set", "outliers only", "no training split", "unknown name", "twice", "no such folder"],
)
def test_what_makes_no_pair_is_refused_in_one_sentence(arguments, said, make_folder, capsys):
    folders = {
        "clothing": make_folder("clothing", train=("reference", 4, 0), test=("clean", 4, 0)),
        "digits": make_folder("digits", test=("digits", 4, 0)),
    }
    assert main(["paper", *(argument.format(**folders) for argument in arguments)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("paper: ") and error.count("\n") == 1
    assert re.search(said, error)


def test_a_folder_without_a_name_is_a_usage_error(capsys):
    with pytest.raises(SystemExit):
        main(["pairs", "--folder", "cifar10"])
    assert "must be NAME=PATH, got 'cifar10'" in capsys.readouterr().err


# Pairs, choice of images, resizing


def test_the_pairs_are_three_in_distribution_sets_against_the_four_others():
    files = {name: {"train": [], "test": []} for name in ALL_SETS}
    assert runnable(files) == list(PAIRS) and not not_run(files)
    assert len(set(PAIRS)) == 12
    assert {inside for inside, _ in PAIRS} == {"cifar10", "svhn", "celeba"}
    assert all({b for a, b in PAIRS if a == inside} == set(ALL_SETS) - {inside} for inside, _ in PAIRS)


def test_a_seed_chooses_images_of_both_splits_and_another_seed_others(make_folder):
    files = folder_files(make_folder("a", train=("reference", 40, 0), test=("clean", 30, 0)))
    made, parts = read_set("cifar10", files, 10, (0, 1, 2), 32)
    for seed in (0, 1, 2):
        for part, folder in (("fit", "train"), ("test", "test")):
            chosen = made.sources[parts[seed][part]]
            assert len(set(chosen)) == 10 and all(f"/{folder}/" in source for source in chosen)
    assert not np.array_equal(made.sources[parts[0]["fit"]], made.sources[parts[1]["fit"]])
    assert len(set(made.sources)) == len(made.sources)  # an image that two seeds choose is read once
    again, same = read_set("cifar10", files, 10, (0, 1, 2), 32)
    assert again.checksum == made.checksum and np.array_equal(same[2]["fit"], parts[2]["fit"])


def test_more_seeds_add_images_to_those_of_the_first(make_folder):
    """So that what the cache holds of the first is of use."""
    files = folder_files(make_folder("a", train=("reference", 40, 0), test=("clean", 30, 0)))
    one, _ = read_set("cifar10", files, 10, (0,), 32)
    three, _ = read_set("cifar10", files, 10, (0, 1, 2), 32)
    assert np.array_equal(three.images[: len(one.images)], one.images) and len(three.images) > len(one.images)


def test_each_image_stands_beside_its_own_source(make_folder):
    files = folder_files(make_folder("a", train=("reference", 20, 0), test=("clean", 20, 0)))
    made, _ = read_set("svhn", files, 5, (0, 1), 32)
    for image, source in zip(made.images, made.sources):
        assert np.array_equal(image, prepare_image(Image.open(source), 32))


def test_images_of_32_pixels_stay_as_they_are_and_larger_models_see_them_enlarged():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    assert np.array_equal(prepare("cifar10", image, 32), np.asarray(image))
    assert np.array_equal(prepare("cifar10", image, 64), prepare_image(image, 64))


def test_large_pictures_are_as_sharp_as_small_ones_at_a_larger_model(photos):
    """Textures come down to 32×32 first, so that at 64×64 they are no sharper than CIFAR."""
    picture = Image.fromarray(photos[2])
    assert np.array_equal(
        prepare("textures", picture, 64), prepare_image(Image.fromarray(prepare_image(picture, 32)), 64)
    )


def test_of_celeba_the_middle_is_taken_where_it_is_uncut(photos):
    """A grey square of 140×140 in the middle of 178×218 red pixels is all that is left."""
    aligned = np.full((218, 178, 3), (255, 0, 0), np.uint8)
    aligned[39:179, 19:159] = 128
    assert (prepare("celeba", Image.fromarray(aligned), 32) == 128).all()
    assert not (prepare("textures", Image.fromarray(aligned), 32) == 128).all()
    small = Image.fromarray(photos[0])  # 128×128
    assert np.array_equal(prepare("celeba", small, 32), prepare_image(small, 32))


def test_a_folder_needs_a_test_split_and_readable_images(make_folder, tmp_path):
    with pytest.raises(SetError, match="has a subfolder train but none of the name test"):
        folder_files(make_folder("a", train=("clean", 3, 0)))
    files = folder_files(make_folder("b", directly=("digits", 3, 0)))
    assert list(files) == ["test"] and len(files["test"]) == 3
    (tmp_path / "b" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(SetError, match="broken.png cannot be read .*; replace or remove the file"):
        read_set("textures", folder_files(tmp_path / "b"), 0, (0,), 32)


# FiftyOne's zoo


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """FiftyOne's zoo without what it may have downloaded before."""
    monkeypatch.setattr(fo.config, "dataset_zoo_dir", str(tmp_path / "zoo"))
    monkeypatch.setattr(fo.config, "default_image_ext", ".jpg")  # FiftyOne's own default
    return tmp_path / "zoo"


@pytest.fixture
def torchvision(monkeypatch):
    """torchvision's download of CIFAR, and nothing else of it, gives clothing to train on and digits to test."""

    class Pictures(list):
        classes = ("clothing", "digits")

    def download(folder, train, download):
        assert download
        images = read_demo("reference", 24) if train else read_demo("digits", 12)
        return Pictures((Image.fromarray(image).convert("RGB"), int(not train)) for image in images)

    datasets = SimpleNamespace(CIFAR10=download, CIFAR100=download)
    monkeypatch.setattr(zoo_torch, "torchvision", SimpleNamespace(datasets=datasets))


def test_a_zoo_set_is_downloaded_without_loss_and_read_from_disk_ever_after(zoo, torchvision, monkeypatch):
    """FiftyOne's own code writes and reads the set; only torchvision's download is replaced."""
    files = zoo_files("cifar10")
    assert {path.parent for path in files["train"]} == {zoo / "cifar10" / "train" / "data"}
    assert (len(files["train"]), len(files["test"])) == (24, 12)
    written = [np.asarray(Image.open(path).convert("L")) for path in files["train"]]
    assert np.array_equal(np.stack(written), read_demo("reference", 24))  # JPEG would have changed them
    assert fo.config.default_image_ext == ".jpg"

    monkeypatch.setattr(zoo_torch, "torchvision", None)  # it is not asked again
    assert zoo_files("cifar10") == files
    assert not [name for name in fo.list_datasets() if name.startswith(("diffpath-benchmark", "cifar10"))]


def test_the_users_own_dataset_of_that_name_is_neither_read_nor_deleted(zoo, torchvision):
    dataset = fo.Dataset("cifar100-test")
    try:
        assert len(zoo_files("cifar100", ["test"])["test"]) == 12
        assert fo.dataset_exists("cifar100-test") and not len(dataset)
    finally:
        dataset.delete()


def test_zoo_sets_and_folders_make_a_pair(zoo, torchvision, make_folder, run):
    """As in the first test: the zoo's CIFAR-10 is clothing in training and digits in testing."""
    clothing = make_folder("clothing", directly=("clean", 12, 0))
    arguments = ("--methods", "raw pixels", "--seeds", 0, "--count", 0)
    table, stored = run("--zoo", "cifar10", "--folder", f"svhn={clothing}", *arguments, title="paper-all")
    assert stored["methods"]["raw pixels"]["results"]["CIFAR-10 → SVHN"][0]["auroc"] < 0.3
    assert "CIFAR-10 (24 of 24 training and 12 of 12 test images, .png)" in table


def test_pairs_take_the_test_split_of_a_zoo_set(zoo, torchvision):
    made = load_zoo("cifar10", pool=5)
    assert made.images.shape == (5, 32, 32, 3)
    assert all("/cifar10/test/" in source for source in made.sources)


@pytest.mark.parametrize("name", ["svhn", "celeba", "textures"])
def test_what_fiftyones_zoo_lacks_is_said_with_the_way_out(zoo, name):
    """Before anything is downloaded."""
    with pytest.raises(SetError, match=f"FiftyOne's zoo has no set {name}; .*--folder {name}=PATH"):
        given_files([], ["cifar10", name])
    assert not zoo.exists()


def test_a_download_without_torchvision_is_refused_in_one_sentence(zoo, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(SetError, match="with torchvision .* not installed; .*--folder cifar100=PATH") as caught:
        zoo_files("cifar100", ["test"])
    assert "\n" not in str(caught.value)
    assert fo.config.default_image_ext == ".jpg"
