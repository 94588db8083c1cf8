"""What is installed is what was tested: the ranges, the exact versions and the lock agree."""

from __future__ import annotations

import re

import pytest
from packaging.requirements import Requirement

from tests import ROOT

STEMS = ("requirements", "requirements-train", "requirements-dev")


def requirements(file: str) -> dict[str, Requirement]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]
    return {requirement.name.lower().replace("_", "-"): requirement for requirement in found}


LOCK = requirements("requirements.lock")


@pytest.mark.parametrize("stem", STEMS)
def test_direct_dependencies_are_exact_inside_their_range_and_in_the_lock(stem):
    ranges, pins = requirements(f"{stem}.in"), requirements(f"{stem}.txt")
    assert list(ranges) == list(pins) and ranges
    for name, pin in pins.items():
        locked = str(LOCK[name].specifier)
        assert re.fullmatch(r"==[^,*]+", locked)
        version = locked.removeprefix("==")
        assert ranges[name].specifier.contains(version), f"{name} {version} is outside its range"
        assert "<" in str(ranges[name].specifier), (
            f"{name} has no upper end, so nobody knows what is installed in a year"
        )
        if name == "torch":
            assert str(pin.specifier) == str(ranges[name].specifier), "ZeroGPU brings its own"
        else:
            assert str(pin.specifier) == locked
        assert pin.extras == ranges[name].extras


def test_everything_in_the_lock_is_exact_and_from_no_named_place():
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert len(LOCK) > 60
    assert all(re.fullmatch(r"==[^,*]+", str(requirement.specifier)) for requirement in LOCK.values())
    assert "://" not in text


def test_a_space_runs_the_gradio_that_was_tested():
    card = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"sdk_version: {str(LOCK['gradio'].specifier).removeprefix('==')}" in card


def test_debian_packages_are_one_a_line():
    lines = (ROOT / "packages.txt").read_text().splitlines()
    assert "libgl1" in lines and all(
        line and line == line.strip().lower() and " " not in line for line in lines
    )
