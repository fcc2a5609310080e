"""FiftyOne's entry point of the plugin: one ``diffpath`` in the process, and its operators.

FiftyOne loads this folder under a name of its own, and anew whenever it looks for operators. What
it registers is always the top-level package ``diffpath``, the one that scripts import, so that an
object made by one is an instance for the other.
"""

import importlib
import importlib.util
import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["register"]

_ROOT = Path(__file__).resolve().parent
_OWN = _ROOT / "diffpath"
_OLDEST = "0.1"  # the oldest version of the library whose operators this plugin can register


def register(plugin: Any) -> None:
    """Registers the operators and the panel; FiftyOne calls this when it loads the plugin.

    Raises:
        ImportError: if what Python finds as ``diffpath`` is something else or too old, or if a
            requirement is missing. FiftyOne keeps it for ``OperatorRegistry().list_errors()``.
    """
    try:
        package = _the_package()
        if _place(package) != _OWN:
            _check(package, plugin.plugin_definition.version)
        operators = importlib.import_module("diffpath.operators")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"The DiffPath plugin needs {error.name}, which is not installed; "
            "run: fiftyone plugins requirements @diffpath/diffpath --install"
        ) from error
    operators.register(plugin)


def _the_package() -> ModuleType:
    """``diffpath``: what is imported or importable already, or else this folder's."""
    if "diffpath" not in sys.modules:
        spec = importlib.util.find_spec("diffpath")
        if spec is None or spec.origin is None:  # nothing, or any folder of that name
            # On the path, so that scripts and the processes that they spawn find the same package;
            # at its end, so that they find everything else where they did
            sys.path.append(str(_ROOT))
    return importlib.import_module("diffpath")


def _check(package: ModuleType, own_version: str) -> None:
    """Refuses what is not this library, or too old; says once in a process if it is another version."""
    from packaging.version import Version  # FiftyOne brings it

    version = getattr(package, "__version__", None)
    way_out = (
        "take that one off Python's path (pip uninstall diffpath), or put the plugin's in its place "
        f"(pip install {_ROOT})"
    )
    if version is None or importlib.util.find_spec("diffpath.operators") is None:
        raise ImportError(
            f"Python finds another package named diffpath, in {_place(package)}, than the DiffPath plugin's; {way_out}"
        )
    if Version(version) < Version(_OLDEST):
        raise ImportError(
            f"The DiffPath plugin needs diffpath {_OLDEST} or newer, but Python finds {version}, in "
            f"{_place(package)}; {way_out}"
        )
    if version != own_version and not hasattr(package, "_said_by_plugin"):
        package._said_by_plugin = True  # there, as this file is run anew each time
        logging.getLogger(__name__).warning(
            "The DiffPath plugin uses diffpath %s, in %s, which Python finds first; for the plugin's own %s, %s",
            version,
            _place(package),
            own_version,
            way_out,
        )


def _place(package: ModuleType) -> Path:
    return Path(package.__file__ or next(iter(package.__path__))).resolve().parent


def _stand_aside() -> None:
    """Puts the library in place of this folder, which Python takes for it when started beside a clone."""
    spec = importlib.util.spec_from_file_location(
        "diffpath", _OWN / "__init__.py", submodule_search_locations=[str(_OWN)]
    )
    assert spec is not None and spec.loader is not None
    sys.modules["diffpath"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["diffpath"])


if __name__ == "diffpath":
    _stand_aside()
