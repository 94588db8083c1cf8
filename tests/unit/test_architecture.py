"""The floors of the house: imports go down only, files stay small."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLOORS = ["config errors devices", "layers", "model", "processor media weights", "pipelines", "training evaluation"]
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names.split()}
FOLDERS = ("core", "quantization", "app")
SOURCES = sorted([*(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")), ROOT / "app.py"])


def imported(path: Path) -> set[str]:
    """Dotted names of everything a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_only(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    names = imported(path)
    if parts[0] == "core":
        assert not [name for name in names if name.split(".")[0] in ("app", "quantization", "gradio")]
        own = LEVEL.get(parts[1])
        if own is not None:
            others = [n.split(".")[1] for n in names if n.startswith("core.") and n.split(".")[1] in LEVEL]
            upward = [n for n in others if LEVEL[n] > own]
            assert not upward, f"{path} imports {upward} from above"
    elif parts[0] == "quantization":
        own = [name for name in names if name.split(".")[0] in ("core", "app")]
        assert set(own) <= {"core.config", "core.devices"}
    elif parts[0] == "app" and len(parts) > 1:
        assert "torch" not in names, "the page holds no tensor code"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_small(path):
    text = path.read_text()
    assert text.count("\n") <= 420
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 85, f"{node.name} is too long"
