"""One ``diffpath`` in a process: the plugin folder and the library are the same module objects.

Each test is a process of its own with a plugins folder of its own. ``-S`` leaves out what the
environment installed in editable mode, so that ``diffpath`` is importable only where a test says so.
"""

import os
import subprocess
import sys
import sysconfig

import pytest
from conftest import ROOT

PLUGIN = """
import fiftyone.operators as foo
from fiftyone.operators.registry import OperatorRegistry

def plugin_class(name):
    operator = foo.get_operator("@diffpath/diffpath/compute_diffpath")
    return getattr(sys.modules[type(operator).__module__.split(".")[0]], name)
"""


@pytest.fixture
def run(tmp_path):
    """Runs a script with the plugin linked, ``diffpath`` importable from ``*paths``; gives its output."""
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "diffpath").symlink_to(ROOT)

    def run(script, *paths, cwd=tmp_path):
        file = tmp_path / "script.py"
        file.write_text("import sys\n" + PLUGIN + script)
        packages = sysconfig.get_path("purelib")
        environment = {
            **os.environ,
            "FIFTYONE_PLUGINS_DIR": str(plugins),
            "PYTHONPATH": os.pathsep.join([*map(str, paths), packages]),
        }
        done = subprocess.run(
            [sys.executable, "-S", str(file)], cwd=cwd, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return run


def other_package(folder, version, operators=True):
    """A package named diffpath, installed elsewhere."""
    package = folder / "other" / "diffpath"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"__version__ = {version!r}\n" if version else "")
    if operators:
        (package / "operators.py").write_text("def register(plugin):\n    print('registered by another')\n")
    return package.parent


SAME = """
import diffpath
assert plugin_class("Reference") is diffpath.Reference
operator = foo.get_operator("@diffpath/diffpath/compute_diffpath")
assert isinstance(operator, sys.modules["diffpath.operators"].ComputeDiffPath)
assert OperatorRegistry().list_errors() == []
print(diffpath.__file__)
"""


def test_the_plugin_alone_is_the_package_that_scripts_import_afterwards(run):
    script = "assert 'diffpath' not in sys.modules\nfoo.list_operators()\n" + SAME
    assert run(script) == f"{ROOT / 'diffpath' / '__init__.py'}\n"


@pytest.mark.parametrize("order", ["library first", "plugin first"])
def test_the_plugin_is_the_library_that_is_installed_from_the_same_folder(order, run):
    first = "import diffpath\n" if order == "library first" else "foo.list_operators()\n"
    assert run(first + SAME, ROOT) == f"{ROOT / 'diffpath' / '__init__.py'}\n"


def test_spawned_processes_read_what_the_plugin_alone_made(run):
    script = """
import multiprocessing

def describe(options):
    return type(options).__module__, options.num_timesteps

if __name__ == "__main__":
    foo.list_operators()
    from diffpath import MethodOptions
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(describe, [MethodOptions(num_timesteps=4)]))
"""
    assert run(script) == "('diffpath.options', 4)\n"


def test_python_beside_a_clone_finds_the_library_in_it(run, tmp_path):
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "diffpath").symlink_to(ROOT)
    script = "from diffpath import MethodOptions\n" + SAME
    assert run(script, tmp_path / "beside") == f"{ROOT / 'diffpath' / '__init__.py'}\n"


def test_another_version_that_is_importable_is_used_and_named_once(run, tmp_path):
    other = other_package(tmp_path, "7.0")
    script = """
import importlib, fiftyone.operators.decorators as decorators
for _ in range(3):
    decorators.cache.clear()  # FiftyOne then loads the plugins anew, as when one has changed
    print(OperatorRegistry().list_errors())
"""
    output = run(script, other)
    assert output.count("registered by another") == output.count("[]") == 3
    assert output.count("The DiffPath plugin uses diffpath 7.0, in ") == 1
    assert str(other / "diffpath") in output and f"pip install {ROOT}" in output


@pytest.mark.parametrize(
    "version, operators, sentence",
    [
        (None, True, "Python finds another package named diffpath, in "),
        ("2.0", False, "Python finds another package named diffpath, in "),
        ("0.0.9", True, "needs diffpath 0.1 or newer, but Python finds 0.0.9, in "),
    ],
)
def test_a_package_that_cannot_serve_the_plugin_is_refused_with_a_way_out(version, operators, sentence, run, tmp_path):
    other = other_package(tmp_path, version, operators)
    script = """
assert not foo.operator_exists("@diffpath/diffpath/compute_diffpath")
(error,) = OperatorRegistry().list_errors()
print(error.splitlines()[-1])
"""
    output = run(script, other)
    assert sentence in output and str(other / "diffpath") in output and f"pip install {ROOT}" in output


def test_a_missing_requirement_is_named_with_the_command_that_installs_it(run):
    script = """
sys.modules["lazy_loader"] = None
print(OperatorRegistry().list_errors()[0].splitlines()[-1])
"""
    assert "needs lazy_loader, which is not installed; run: fiftyone plugins requirements" in run(script)
