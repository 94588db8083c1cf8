"""Fixtures of the tests of a start."""

from __future__ import annotations

import pytest


@pytest.fixture
def a_file(tmp_path):
    file = tmp_path / "file"
    file.write_text("kept")
    return file
