"""Threads that wait for each other soon give their core away, whichever door the program is entered by."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests import ROOT

DOORS = (
    "core",
    "core.training.__main__",
    "core.evaluation.__main__",
    "core.weights.priors",
    "quantization.__main__",
    "quantization.export",
    "quantization.random_checkpoint",
    "app.launch",
    "app.web.page",
    "tests.conftest",
)
# prints what OpenMP will read at the moment PyTorch is first asked for
_WATCH = """
import importlib, os, sys
class Watch:
    def find_spec(self, name, *_):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT", "unset"))
            sys.stdout.flush()
            os._exit(0)
sys.meta_path.insert(0, Watch())
importlib.import_module(sys.argv[1])
import torch
"""


def spins(door: str, **given: str) -> str:
    environ = {
        name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    command = [sys.executable, "-c", _WATCH, door]
    return subprocess.run(
        command, cwd=ROOT, env=environ | given, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.mark.parametrize("door", DOORS)
def test_every_door_sets_it_before_pytorch_is_imported(door):
    assert spins(door) == "1000"


def test_a_persons_own_setting_stays():
    assert spins("core", GOMP_SPINCOUNT="7") == "7"
    assert spins("core", OMP_WAIT_POLICY="active") == "unset"
