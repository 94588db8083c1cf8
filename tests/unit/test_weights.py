"""Checkpoint folders with a missing, cut or foreign file: one sentence that names it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from core import HaploOmni
from core.devices import resolve_device, resolve_dtype
from core.errors import CheckpointError, RequestError
from core.weights import bundled_checkpoint, resolve_checkpoint

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def copy(tmp_path):
    return Path(shutil.copytree(bundled_checkpoint(), tmp_path / "checkpoint"))


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "model.safetensors",
        "tokenizer_config.json",
        "preprocessor_config.json",
        "vae/config.json",
        "haploomni.json",
    ],
)
def test_missing_file(copy, name):
    (copy / name).unlink()
    if name == "haploomni.json":  # the only optional one: the released profile stands in
        assert HaploOmni.load(copy, device="cpu").profile["name"] == "HaploOmni 9B"
        return
    with pytest.raises(CheckpointError, match=name.rsplit("/", maxsplit=1)[-1].replace(".", r"\.")):
        HaploOmni.load(copy, device="cpu")


@pytest.mark.parametrize("name", ["model.safetensors", "vae/diffusion_pytorch_model.safetensors"])
@pytest.mark.parametrize("fault", ["cut", "empty", "page", "longer"])
def test_damaged_weights(copy, name, fault):
    data = (copy / name).read_bytes()
    broken = {"cut": data[:-5000], "empty": b"", "page": b"<!doctype html><p>not found</p>", "longer": data + b"x"}
    (copy / name).write_bytes(broken[fault])
    with pytest.raises(CheckpointError, match=name.rsplit("/", maxsplit=1)[-1].replace(".", r"\.")) as caught:
        HaploOmni.load(copy, device="cpu")
    assert "\n" not in str(caught.value)


def test_foreign_files(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    with pytest.raises(CheckpointError, match="does not describe a HaploOmni"):
        HaploOmni.load(copy, device="cpu")
    (copy / "config.json").write_text("{ no json")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        HaploOmni.load(copy, device="cpu")
    config["pre_config"] = {**config["pre_config"], "hidden_size": 129}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="129"):
        HaploOmni.load(copy, device="cpu")


def test_index_names_a_missing_shard(copy):
    (copy / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="model-00001-of-00002"):
        HaploOmni.load(copy, device="cpu")


def test_names_that_are_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        resolve_checkpoint("./nowhere")
    with pytest.raises(CheckpointError, match="is a file"):
        resolve_checkpoint(__file__)
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        HaploOmni.load(tmp_path, device="cpu")


def test_the_command_line_says_the_same(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "app.py", "--checkpoint", tmp_path, "--port", "0"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 2
    assert "has no config.json" in done.stderr and "Traceback" not in done.stderr


def test_devices_and_dtypes():
    cpu = resolve_device("cpu")
    assert resolve_dtype("auto", cpu) is torch.float32
    assert resolve_dtype("bfloat16", cpu) is torch.bfloat16
    for wrong in ("gpu", "cuda:99", "xpu"):
        with pytest.raises(RequestError, match=wrong.split(":")[0]):
            resolve_device(wrong)
    with pytest.raises(RequestError, match="int8"):
        resolve_dtype("int8", cpu)


def test_bundled_checkpoint_is_small_and_complete():
    files = [f for f in bundled_checkpoint().rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) <= 48 * 2**20
    names = {f.relative_to(bundled_checkpoint()).as_posix() for f in files}
    assert {"README.md", "model.safetensors", "vae/config.json", "scheduler/scheduler_config.json", "preview.json"} <= names
