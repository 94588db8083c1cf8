"""The table that measurements are printed as."""

from __future__ import annotations


def row(name: str, fast: float, plain: float, unit: str, against: str) -> str:
    """A table row with both figures and their ratio."""
    return f"| {name} | {fast:.3g} {unit} | {plain:.3g} {unit} | {plain / max(fast, 1e-9):.2f}x | {against} |"
