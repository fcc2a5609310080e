"""FiftyOne's entry point of the plugin: one ``diffpath`` in the process, and its operators.

FiftyOne loads this folder under a name of its own. What it registers is the top-level package
``diffpath``, the one that scripts import, so that an object made by one is an instance for the
other.
"""

import importlib
import importlib.util
import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["register"]

_OWN = Path(__file__).resolve().parent / "diffpath" / "__init__.py"


def register(plugin: Any) -> None:
    """Registers the operators and the panel; FiftyOne calls this when it loads the plugin."""
    _the_package()
    importlib.import_module("diffpath.operators").register(plugin)


def _the_package() -> ModuleType:
    """``diffpath``: what is importable already, or else this folder's."""
    spec = None if "diffpath" in sys.modules else importlib.util.find_spec("diffpath")
    if "diffpath" not in sys.modules and spec is None:
        spec = importlib.util.spec_from_file_location("diffpath", _OWN, submodule_search_locations=[str(_OWN.parent)])
        module = importlib.util.module_from_spec(spec)
        sys.modules["diffpath"] = module
        spec.loader.exec_module(module)
        return module
    module = importlib.import_module("diffpath")
    if Path(module.__file__ or "").resolve() != _OWN:
        logging.getLogger(__name__).warning(
            "The DiffPath plugin uses diffpath %s of %s, which is installed, not its own of %s; to change that, "
            "uninstall it or pip install %s",
            module.__version__,
            Path(module.__file__).parent,
            _OWN.parent,
            _OWN.parent.parent,
        )
    return module
