"""The floors of the house: imports go down only, without circles; files and functions stay small."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests import ROOT

FLOORS = [
    "config errors devices files opencv text",
    "geometry requests schedule profile scenes",
    "layers",
    "model",
    "processor media weights",
    "pipelines",
    "training evaluation",
]
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names.split()}
# what quantization may use of core
BELOW_QUANTIZATION = (
    "config",
    "devices",
    "errors",
    "files",
    "geometry",
    "profile",
    "requests",
    "model.meta",
    "weights.resolve",
)
# of app, from the top; web and api stand side by side
APP_FLOORS = ("web", "api", "services", "engine")
# whose room a library is; torch is no room's
KEPT_IN = {"gradio": "web", "fastapi": "api", "starlette": "api", "torch": ""}
FOLDERS = ("core", "quantization", "app")
SOURCES = sorted([*(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")), ROOT / "app.py"])


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


def imported(path: Path) -> set[str]:
    """Dotted names of everything a file imports, wherever in it; of our own the file that is meant."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            files = {name for name in inner if name in MODULES}
            names |= files
            if len(files) < len(inner):
                names.add(node.module)
    return names


GRAPH = {name: sorted(imported(path) & MODULES.keys() - {name}) for name, path in MODULES.items()}


def circle_through(start: str) -> list[str]:
    """The shortest way from a file back to itself, or nothing."""
    ways = [[start, name] for name in GRAPH[start]]
    seen = set(GRAPH[start])
    for way in ways:
        if way[-1] == start:
            return way
        for name in GRAPH[way[-1]]:
            if name == start or name not in seen:
                seen.add(name)
                ways.append([*way, name])
    return []


def test_the_graph_has_the_files():
    assert len(GRAPH) > 100
    assert "core.model.modeling" in GRAPH["core.weights.load"]


@pytest.mark.parametrize("name", GRAPH)
def test_no_file_imports_itself_in_a_circle(name):
    assert not circle_through(name)


def floor_faults(name: str, names: set[str]) -> list[str]:
    """What of ``names`` the file ``name`` may not import."""
    own = name.split(".")
    if own[0] == "core":
        faults = [other for other in names if other.split(".")[0] in ("app", "quantization", "gradio")]
        level = LEVEL.get(own[1]) if len(own) > 1 else None
        rooms = {other: other.split(".")[1] for other in names if other.startswith("core.")}
        if level is not None:
            faults += [other for other, room in rooms.items() if LEVEL.get(room, 0) > level]
        return faults
    if own[0] == "quantization":
        allowed = ("core", *(f"core.{room}" for room in BELOW_QUANTIZATION))
        return [other for other in names if other.split(".")[0] in ("core", "app") and other not in allowed]
    return app_faults(own[1], names) if len(own) > 1 else []


def app_faults(room: str, names: set[str]) -> list[str]:
    """What of ``names`` a room of app may not import; start-up, errors and formatting are everybody's."""
    faults = [name for name in names if name.split(".")[0] in KEPT_IN and room != KEPT_IN[name.split(".")[0]]]
    rooms = {name: name.split(".")[1] for name in names if name.startswith("app.")}
    if room in APP_FLOORS:
        above = ("launch", "checks", *APP_FLOORS[: APP_FLOORS.index(room)])
        beside = ("web", "api") if room in ("web", "api") else ()
        faults += [name for name, other in rooms.items() if other != room and other in (*above, *beside)]
    return faults


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down_only(name):
    assert not floor_faults(name, imported(MODULES[name]))


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("core.model.masks", "core.pipelines.chat"),
        ("core.geometry", "app.engine.engine"),
        ("app.launch", "gradio"),
        ("app.services.chat", "gradio.data_classes"),
        ("app.web.page", "starlette.responses"),
        ("app.web.page", "app.api.guard"),
        ("app.services.chat", "app.web.forms"),
        ("app.engine.jobs", "app.services.chat"),
        ("quantization.planner", "core.model.modeling"),
        ("app.web.page", "torch"),
    ],
)
def test_an_import_against_the_floors_would_be_seen(name, other):
    assert floor_faults(name, {other})


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_small(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{node.name} is too long"


@pytest.mark.parametrize("folder", FOLDERS)
def test_tests_mirror_the_tree(folder):
    rooms = [path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests" / folder).rglob("test_*.py")]
    assert rooms
    assert not [room for room in rooms if not (ROOT / room).is_dir()]
