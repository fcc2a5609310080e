"""Pictures at addresses, read through fsspec: the same as files, each fetched once; and what cannot be had is said."""

import csv
import functools
import http.server
import json
import shlex
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
from conftest import ROOT, read_demo
from PIL import Image

from diffpath import addresses, load_reference
from diffpath.cli import main
from diffpath.decoding import Room
from diffpath.errors import ImageError
from diffpath.folders.command import show
from diffpath.folders.files import file_keys, stem_of
from diffpath.folders.listing import list_pictures
from diffpath.folders.scoring import score_files
from diffpath.images import image_size, load_image, stored_values

HOW = dict(rule="false_positive_rate", level=0.05, batch_size=7)
FEW = ["--num-timesteps", "2", "--dtype", "float32", "--batch-size", "7"]


class Server(http.server.ThreadingHTTPServer):
    """A folder at an address; remembers what it was asked for."""

    def __init__(self, folder):
        self.asked = []
        handler = type("Handler", (_Handler,), {"asked": self.asked})
        super().__init__(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def fetched(self):
        """Paths of the pictures that were sent, and forgets them."""
        found = sorted(path for method, path in self.asked if method == "GET" and path.endswith(".png"))
        self.asked.clear()
        return found


class _Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        self.asked.append(("GET", self.path))
        if self.path == "/endless.png":
            return self.send_without_end()
        if self.path == "/forbidden.png":
            return self.send_error(403)
        return super().do_GET()

    def do_HEAD(self):
        self.asked.append(("HEAD", self.path))
        if self.path == "/endless.png":
            self.send_response(200)
            self.end_headers()
        elif self.path == "/forbidden.png":
            self.send_error(403)
        else:
            super().do_HEAD()

    def send_without_end(self):
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(bytes(1 << 16))
        except OSError:
            pass

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of 14 pictures, four of them one folder below."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "below").mkdir()
    for kind, count, where in (("clean", 10, folder), ("photos", 4, folder / "below")):
        for number, pixels in enumerate(read_demo(kind, count)):
            Image.fromarray(pixels).save(where / f"{kind} {number:02}.png")
    (folder / "notes.md").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("fitted") / "r.safetensors"
    good = tmp_path_factory.mktemp("good")
    for number, pixels in enumerate(read_demo("reference", 24)):
        Image.fromarray(pixels).save(good / f"{number}.png")
    assert main(["fit", str(good), "-o", str(path), *FEW]) == 0
    return path


@pytest.fixture
def memory():
    """fsspec's file system in memory, empty."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


@pytest.fixture
def bucket(memory, pictures):
    """The pictures in memory; the address of their folder."""
    for path in pictures.rglob("*.*"):
        memory.pipe(f"/bucket/new/{path.relative_to(pictures)}", path.read_bytes())
    return "memory://bucket/new"


@pytest.fixture
def server(pictures):
    with Server(pictures) as running:
        yield running
        running.shutdown()


def score(what, reference, *flags):
    return main(["score", *map(str, what), "--reference", str(reference), "--batch-size", "7", *map(str, flags)])


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def numbers(path):
    """The rows of a table by the names of their files, without their paths."""
    rows = {row.pop("filepath").rsplit("/", 1)[1].replace("%20", " "): row for row in read_csv(path)}
    return dict(sorted(rows.items()))


def test_what_is_elsewhere_is_scored_as_files_are(bucket, server, pictures, reference, tmp_path):
    places = {"here": pictures, "memory": bucket, "web": server.address}
    for name, place in places.items():
        assert score([place], reference, "--csv", tmp_path / f"{name}.csv") == 0
    here = numbers(tmp_path / "here.csv")
    assert len(here) == 14 and numbers(tmp_path / "memory.csv") == here == numbers(tmp_path / "web.csv")
    listed = [row["filepath"] for row in read_csv(tmp_path / "memory.csv")]
    assert listed[0] == "memory://bucket/new/below/photos 00.png"
    assert len(server.fetched()) == 14  # each once


def test_a_reference_of_addresses_is_that_of_files(bucket, pictures, tmp_path):
    for name, place in (("here", pictures), ("memory", bucket)):
        assert main(["fit", str(place), "-o", str(tmp_path / f"{name}.safetensors"), *FEW]) == 0
    here, elsewhere = (load_reference(tmp_path / f"{name}.safetensors") for name in ("here", "memory"))
    np.testing.assert_array_equal(
        np.sort(here.detector.reference_scores_), np.sort(elsewhere.detector.reference_scores_)
    )
    paths = list_pictures([bucket])
    assert sorted(elsewhere.places(file_keys(paths))) == list(range(14))  # they do not vouch for themselves


def test_a_reference_can_be_at_an_address(memory, bucket, reference, tmp_path, capsys):
    memory.pipe("/bucket/r.safetensors", reference.read_bytes())
    assert score([bucket], "memory://bucket/r.safetensors", "--csv", tmp_path / "out.csv") == 0
    assert score([bucket], reference, "--csv", tmp_path / "local.csv") == 0
    assert (tmp_path / "out.csv").read_text() == (tmp_path / "local.csv").read_text()
    assert main(["inspect", "memory://bucket/r.safetensors"]) == 0
    capsys.readouterr()
    assert score([bucket], "memory://bucket/none.safetensors") == 1
    said = capsys.readouterr().err
    assert "no reference can be read from memory://bucket/none.safetensors" in said and said.count("\n") == 1


def test_what_cannot_be_had_is_a_row_with_the_reason(server, pictures, reference, tmp_path, monkeypatch):
    monkeypatch.setattr(addresses, "_ROOM", Room(1e-3))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    reasons = {
        f"{server.address}/missing.png": "does not exist; correct the address",
        f"{server.address}/forbidden.png": "cannot be read \\(403, message='Forbidden'",
        f"{server.address}/endless.png": "is larger than the 1,200,000 bytes",
        f"{server.address}/notes.md": "is not an image that Pillow can identify",
        f"{server.address}/below/": "is a web page, which Pillow does not read",
        "http://127.0.0.1:9/a.png": "cannot be read \\(Cannot connect to host",
    }
    (tmp_path / "list.txt").write_text("\n".join([*reasons, f"{server.address}/clean%2000.png"]))
    assert score([tmp_path / "list.txt"], reference, "--csv", tmp_path / "out.csv") == 0
    rows = {row["filepath"]: row["reason"] for row in read_csv(tmp_path / "out.csv")}
    assert [path for path, reason in rows.items() if not reason] == [f"{server.address}/clean%2000.png"]
    for address, reason in reasons.items():
        assert rows[address].startswith(address) and "\n" not in rows[address]
        with pytest.raises(ImageError, match=reason):
            raise ImageError(rows[address])


def test_what_is_larger_than_there_is_room_for_is_not_fetched(bucket, monkeypatch):
    monkeypatch.setattr(addresses, "_ROOM", Room(1e-7))
    with pytest.raises(ImageError, match="is too large to fetch safely .* set DIFFPATH_DECODING_MEMORY"):
        load_image(f"{bucket}/clean 00.png", 32)


def test_threads_wait_for_room_and_give_back_what_they_do_not_need():
    room = Room(1e-6)  # of 1.2 GB: 1,200 bytes
    order, second = [], threading.Event()

    def wait():
        with room.taken(600):
            order.append("second")
            second.set()

    with room.taken(1200) as keep:
        threading.Thread(target=wait).start()
        assert not second.wait(0.1)
        order.append("first")
        keep(600)
        assert second.wait(5)
    with room.taken(1200):
        assert order == ["first", "second"]


def test_what_was_read_is_not_fetched_again(server, reference, tmp_path):
    pattern = f"{server.address}/*.png"
    how = dict(**HOW, working=tmp_path / "working", maps=tmp_path / "maps")
    show(score_files(list_pictures([pattern]), load_reference(reference), **how))
    assert len(server.fetched()) == 10
    verdicts = show(score_files(list_pictures([pattern]), load_reference(reference), **how))
    assert server.fetched() == [] and verdicts.num_scored == 10
    names = [Path(path).name for path in verdicts.maps["heatmap"]]
    assert len(set(names)) == 10 and all(name.startswith("clean_20") for name in names)


def test_what_has_changed_is_fetched_again(memory, bucket, reference, tmp_path):
    how = dict(**HOW, working=tmp_path / "working")
    show(score_files(list_pictures([bucket]), load_reference(reference), **how))
    memory.pipe("/bucket/new/clean 03.png", memory.cat("/bucket/new/below/photos 00.png"))
    assert next(score_files(list_pictures([bucket]), load_reference(reference), **how)).total == 1
    named = [f"{bucket}/clean {number:02}.png" for number in range(10)]
    assert next(score_files(list_pictures(named), load_reference(reference), **how)).total == 1


@pytest.mark.parametrize("kind", ["folder", "slash", "pattern", "deep", "text", "table", "elsewhere", "files"])
def test_addresses_are_named_in_many_ways(kind, memory, bucket, tmp_path):
    expected = [f"{bucket}/clean {number:02}.png" for number in range(10)]
    photos = [f"{bucket}/below/photos {number:02}.png" for number in range(4)]
    (tmp_path / "list.txt").write_text("\n".join([*expected, "", expected[0]]))
    (tmp_path / "list.csv").write_text("".join(f"{row}\r\n" for row in ["label,path", *(f"a,{a}" for a in expected)]))
    memory.pipe("/bucket/new/list.csv", "".join(f"{name}\n" for name in ["path", *(a[20:] for a in expected)]).encode())
    what, found = {
        "folder": ([bucket], [*photos, *expected]),
        "slash": ([f"{bucket}/"], [*photos, *expected]),
        "pattern": ([f"{bucket}/clean*.png"], expected),
        "deep": (["memory://**/photos*.png"], photos),
        "text": ([tmp_path / "list.txt"], expected),
        "table": ([tmp_path / "list.csv"], expected),
        "elsewhere": ([f"{bucket}/list.csv"], expected),
        "files": (expected, expected),
    }[kind]
    assert list_pictures(what) == found


def test_a_folder_on_the_web_is_listed_with_all_below_it(server):
    below = [f"{server.address}/below/photos%20{number:02}.png" for number in range(4)]
    assert list_pictures([f"{server.address}/below"]) == list_pictures([f"{server.address}/below/"]) == below
    assert len(list_pictures([server.address])) == 14
    with pytest.raises(ImageError, match="/nowhere does not exist; correct the address"):
        list_pictures([f"{server.address}/nowhere"])


def test_pictures_can_be_in_an_archive_that_is_elsewhere(memory, pictures):
    with memory.open("/bucket/a.zip", "wb") as file, zipfile.ZipFile(file, "w") as archive:
        for path in pictures.glob("clean 0[0-2].png"):
            archive.write(path, f"in/{path.name}")
    expected = [f"zip://in/clean {number:02}.png::memory://bucket/a.zip" for number in range(3)]
    for what in ("zip://in::memory://bucket/a.zip", "zip://**/*.png::memory://bucket/a.zip"):
        assert list_pictures([what]) == expected
    np.testing.assert_array_equal(load_image(expected[0], 32), load_image(pictures / "clean 00.png", 32))


def test_outputs_are_written_here_only(bucket, reference, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command in (
        ["fit", bucket, "-o", "s3://bucket/r.safetensors"],
        ["score", bucket, "--reference", str(reference), "--csv", "memory://bucket/out.csv"],
    ):
        assert main(command) == 1
        assert "is an address, and files are written on this machine only" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_brackets_can_be_a_names_own(memory):
    memory.pipe("/bucket/a[1].png", b"")
    assert list_pictures(["memory://bucket/a[1].png"]) == ["memory://bucket/a[1].png"]


def test_a_colon_alone_makes_no_address(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("s3:", "a:b.png", "memory:x"):
        assert not addresses.is_address(name)
    assert not addresses.is_address("C://pictures/a.png") and not addresses.is_address(Path("s3://bucket/a.png"))
    (tmp_path / "s3:").mkdir()
    picture = (pictures / "clean 00.png").read_bytes()
    for name in ("s3:/a.png", "a:b.png"):
        Path(name).write_bytes(picture)
    assert list_pictures(["s3:", "a:b.png"]) == ["s3:/a.png", "a:b.png"]
    assert list_pictures([f"file://{tmp_path}/a:b.png"]) == [f"{tmp_path}/a:b.png"]


def test_a_list_that_is_elsewhere_names_nothing_here(memory):
    memory.pipe("/bucket/list.txt", b"/etc/a.png\nfile:///etc/b.png\n")
    assert list_pictures(["memory://bucket/list.txt"]) == [
        "memory://bucket/etc/a.png",
        "memory://bucket/file:///etc/b.png",
    ]


@pytest.mark.parametrize(
    "address, sentence",
    [
        ("nothing://a/b.png", "fsspec knows no nothing:// addresses; give others"),
        ("gs://bucket/a.png", "what reads gs:// addresses is not installed; run: pip install gcsfs"),
        ("memory://nowhere/", "memory://nowhere/ does not exist; correct the address"),
        ("memory://nowhere/*.png", "there are no pictures in memory://nowhere/*.png"),
        ("memory://nowhere/list.csv", "memory://nowhere/list.csv does not exist"),
    ],
)
def test_what_no_address_can_be_had_from_is_one_sentence_before_anything_is_scored(
    address, sentence, memory, reference, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    (tmp_path / "list.txt").write_text(f"{address}\n")
    listed = [tmp_path / "list.txt"] if address.endswith("a.png") or address.startswith("nothing") else [address]
    assert score(listed, reference) == 1
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1


def test_without_fsspec_the_extra_is_named(reference, capsys, monkeypatch):
    addresses._file_system_class.cache_clear()
    monkeypatch.setitem(sys.modules, "fsspec", None)
    assert score(["s3://bucket/a.png"], reference) == 1
    assert 'run: pip install "diffpath[remote]"' in capsys.readouterr().err


def test_all_that_reads_files_reads_addresses(memory, tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 4096, (40, 50), np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(rng.integers(0, 256, (300, 200, 3), np.uint8)).save(tmp_path / "photo.jpg", exif=_turned())
    cv2 = pytest.importorskip("cv2")
    cv2.imwrite(str(tmp_path / "colours.png"), rng.integers(0, 65536, (40, 50, 3), np.uint16))
    for path in tmp_path.iterdir():
        address = f"memory://files/{path.name}"
        memory.pipe(f"/files/{path.name}", path.read_bytes())
        np.testing.assert_array_equal(load_image(address, 32, (0, 4095)), load_image(path, 32, (0, 4095)))
        np.testing.assert_array_equal(stored_values(address), stored_values(path))
        assert image_size(address) == image_size(path)
    memory.pipe("/files/raw.nef", b"II*\0" + bytes(50))
    with pytest.raises(ImageError, match="memory://files/raw.nef is a camera raw file"):
        load_image("memory://files/raw.nef", 32)
    memory.pipe("/files/empty.png", b"")
    with pytest.raises(ImageError, match=r"memory://files/empty.png is empty \(0 bytes\)"):
        load_image("memory://files/empty.png", 32)


def _turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def test_a_report_shows_pictures_that_are_elsewhere(bucket, reference, tmp_path):
    assert score([bucket], reference, "--report", tmp_path / "r.html") == 0
    page = (tmp_path / "r.html").read_text()
    assert page.count("src='data:image/jpeg") == 14 and "<b>photos 00.png</b>" in page


def test_the_commands_of_the_page_run(memory, bucket, server, tmp_path, monkeypatch):
    lines = (ROOT / "docs" / "score-folders.md").read_text().splitlines()
    fit, score = [shlex.split(line)[1:] for line in lines if line.startswith("diffpath ") and "://" in line]
    for number, pixels in enumerate(read_demo("reference", 12)):
        with memory.open(f"/bucket/good/{number}.png", "wb") as file:
            Image.fromarray(pixels).save(file, "PNG")
    (tmp_path / "list.csv").write_text(f"filepath\n{server.address}/clean%2000.png\n")
    monkeypatch.chdir(tmp_path)

    def ours(command):
        changed = [word.replace("s3://", "memory://").replace("https://host/shots", server.address) for word in command]
        return [word.replace(".jpg", ".png") for word in changed]

    assert main(ours([*fit, *FEW])) == 0
    memory.pipe("/bucket/reference.safetensors", Path("reference.safetensors").read_bytes())
    assert main(ours(score)) == 0
    rows = read_csv(tmp_path / "out.csv")
    assert len(rows) == 14 + 10 and not any(row["reason"] for row in rows)


@pytest.mark.parametrize(
    "path, stem",
    [
        ("https://host/a b/c%20d.jpg?token=a/b.c#e", "c_20d"),
        ("s3://bucket/a:b*?.png", "a_b_"),
        ("memory://" + "x" * 300 + ".png", "x" * 50),
        ("pictures/a:b.png", "a:b"),
    ],
)
def test_files_that_are_made_of_an_address_have_names_that_every_file_system_takes(path, stem):
    assert stem_of(path) == stem


def test_mistakes_are_said_without_what_takes_seconds_to_import(tmp_path):
    script = (
        "import json, sys; from diffpath.cli import main; status = main(sys.argv[1:]); print(json.dumps([status, *("
    )
    script += "name for name in ('torch', 'scipy', 'sklearn', 'fsspec', 'matplotlib') if name in sys.modules)]))"
    for arguments in (
        ["score", "x", "--reference", "nothing"],
        ["score", "nowhere", "--reference", str(tmp_path / "there")],
        ["score", "x", "--rule", "nothing", "--reference", "y"],
        ["fit", "nowhere"],
    ):
        (tmp_path / "there").write_bytes(b"")
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert json.loads(done.stdout) == [1], done.stderr
