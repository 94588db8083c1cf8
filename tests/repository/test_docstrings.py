"""Whoever takes or gives tensors or arrays says of what shape."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests import ROOT

SOURCES = sorted(path for folder in ("core", "quantization", "app") for path in (ROOT / folder).rglob("*.py"))
ARRAYS = re.compile(r"\b(Tensor|ndarray|RotaryTable)\b")
# dimensions in brackets, [B, S, D] or [T, H, W, 3]; not a range of values, nor a picture of a sequence
SHAPE = re.compile(r"\[(?!-?[01], 1[\])])[^\[\]|]+\]|\bscalars?\b|\bany shape\b", re.IGNORECASE)


def types(node: ast.AST) -> str:
    """The annotations of a function's parameters and result, or of a class's fields."""
    if isinstance(node, ast.ClassDef):
        found = [field.annotation for field in node.body if isinstance(field, ast.AnnAssign)]
    else:
        parameters = [child for child in ast.walk(node.args) if isinstance(child, ast.arg)]
        found = [*(parameter.annotation for parameter in parameters), node.returns]
    return " ".join(ast.unparse(annotation) for annotation in found if annotation is not None)


def public(body: list[ast.stmt], owner: ast.ClassDef | None = None) -> Iterator[tuple[str, ast.AST, str]]:
    """(name, node, what its docstring says) of all public classes and functions, and of the classes' own."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node, ast.get_docstring(node) or ""
            yield from public(node.body, node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            said = ast.get_docstring(node) or ""
            # a class's docstring describes what the class is made of
            if owner is not None and node.name == "__init__":
                said = ast.get_docstring(owner) or ""
            if not node.name.startswith("_") or node.name in ("__init__", "__call__"):
                yield f"{owner.name}.{node.name}" if owner else node.name, node, said


def with_arrays(source: str) -> dict[str, str]:
    """What the docstrings say of everything public in a source that takes or gives arrays."""
    return {name: said for name, node, said in public(ast.parse(source).body) if ARRAYS.search(types(node))}


def without_shape(source: str) -> list[str]:
    """Names of what takes or gives arrays and says no shape."""
    return [name for name, said in with_arrays(source).items() if not SHAPE.search(said)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_public_tensor_has_a_shape(path):
    assert not without_shape(path.read_text(encoding="utf-8"))


def test_the_tree_is_seen():
    found = sum(len(with_arrays(path.read_text(encoding="utf-8"))) for path in SOURCES)
    assert found > 150


@pytest.mark.parametrize(
    "source",
    [
        'def f(x: Tensor) -> None:\n    """Takes something in [0, 1]."""',
        'def f() -> dict[str, torch.Tensor]:\n    """[text | noise]."""',
        "async def f(*frames: np.ndarray) -> None: ...",
        "def f(*, draw: Callable[..., np.ndarray]) -> None: ...",
        'class A:\n    """[B, S]."""\n    def forward(self, x: Tensor) -> None: ...',
        "class A:\n    def __call__(self, x: Tensor | None) -> None: ...",
        'class A:\n    """Of nothing."""\n    def __init__(self, x: Tensor) -> None: ...',
        'class A:\n    """Of nothing."""\n    x: Tensor',
    ],
)
def test_a_missing_shape_is_seen(source):
    assert len(without_shape(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        'def f(x: Tensor) -> None:\n    """Takes [B, S, D] in [0, 1]."""',
        'def f() -> dict[str, Tensor]:\n    """The losses: scalars."""',
        'def f(x: Tensor) -> None:\n    """A tensor of any shape."""',
        'class A:\n    """Of a mask [B, S]."""\n    def __init__(self, x: Tensor) -> None: ...',
        "def _f(x: Tensor) -> None: ...",
        "class _A:\n    x: Tensor",
        "def f(x: int) -> str: ...",
    ],
)
def test_a_shape_or_nothing_public_is_no_fault(source):
    assert not without_shape(source)
