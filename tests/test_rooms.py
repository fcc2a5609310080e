"""The rooms of the package, as CONTRIBUTING.md lists them: who imports whom."""

import ast
import re

import pytest
from conftest import ROOT

PACKAGE = ROOT / "diffpath"
MODULES = sorted(PACKAGE.rglob("*.py"))
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
ROOMS = re.findall(r"^(\w+) {2,}\S", re.search(r"## Rooms\n.*?```\n(.*?)```", CONTRIBUTING, re.DOTALL)[1], re.MULTILINE)


def room_of(name):
    """The room of a module ``diffpath.….…``; what belongs to no room are names of ``__init__``."""
    parts = name.split(".")
    if parts[:2] == ["diffpath", "__main__"]:
        return "cli"
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "__init__"


def imports(path, everywhere=True):
    """What a module imports, as absolute names: anywhere, in functions too, or only when it is imported."""
    package = ["diffpath", *path.relative_to(PACKAGE).parent.parts]
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if everywhere else at_import(tree.body):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            name = node.args[0]
            if isinstance(name, ast.Constant):
                yield name.value if not name.value.startswith(".") else ".".join(package) + name.value


def at_import(statements):
    """The statements that run when a module is imported, those of its branches included."""
    for node in statements:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from at_import(node.orelse)
            continue
        yield node
        for field in ("body", "orelse", "finalbody"):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from at_import(getattr(node, field, []))
        for handler in getattr(node, "handlers", []):
            yield from at_import(handler.body)


def modules_of(*rooms):
    return [path for path in MODULES if path.relative_to(PACKAGE).with_suffix("").parts[0] in rooms]


def relative(path):
    return str(path.relative_to(PACKAGE))


def test_the_list_of_rooms_is_that_of_the_folders():
    found = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(ROOMS) == found - {"__main__"}
    assert len(ROOMS) == len(set(ROOMS))


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_no_module_imports_a_room_above_its_own(path):
    own = ROOMS.index(room_of(".".join(["diffpath", *path.relative_to(PACKAGE).with_suffix("").parts])))
    ours = [name for name in imports(path) if name.split(".")[0] == "diffpath"]
    upward = [name for name in ours if ROOMS.index(room_of(name)) > own and name != "diffpath.__version__"]
    assert upward == []


@pytest.mark.parametrize("path", modules_of("detection", "dataset", "operators"), ids=relative)
def test_detection_and_the_fiftyone_side_import_no_torch_by_themselves(path):
    assert [name for name in imports(path, everywhere=False) if name.split(".")[0] in ("torch", "diffusers")] == []


@pytest.mark.parametrize("path", modules_of("detection"), ids=relative)
def test_detection_never_uses_torch_nor_fiftyone(path):
    assert [name for name in imports(path) if name.split(".")[0] in ("torch", "diffusers", "fiftyone")] == []


@pytest.mark.parametrize("path", modules_of(*ROOMS[: ROOMS.index("dataset")]), ids=relative)
def test_below_the_dataset_nothing_uses_fiftyone(path):
    assert [name for name in imports(path) if name.split(".")[0] in ("fiftyone", "eta", "bson")] == []


@pytest.mark.parametrize(
    "path", [path for path in modules_of("dataset", "operators") if path.name != "internals.py"], ids=relative
)
def test_only_internals_touches_what_fiftyone_does_not_promise(path):
    promised = ("fiftyone", "fiftyone.operators", "fiftyone.operators.types")
    modules = [name.rpartition(".")[0] or name for name in imports(path) if name.split(".")[0] == "fiftyone"]
    assert [name for name in modules if name not in promised] == []
    private = [
        ast.unparse(node)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and (node.attr in ("core", "server") or (node.attr.startswith("_") and not node.attr.startswith("__")))
        and ast.unparse(node.value) not in ("self", "cls")
    ]
    assert private == [], "of another object; FiftyOne's belong into dataset/internals.py"
