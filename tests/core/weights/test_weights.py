"""Checkpoint folders with a missing, cut or foreign file: one sentence that names it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME as INDEX

from core import HaploOmni
from core.devices import resolve_device, resolve_dtype
from core.errors import CheckpointError, RequestError
from core.files import weight_files
from core.profile import PREVIEW_FILE, PROFILE_FILE
from core.weights import bundled_checkpoint, resolve_checkpoint
from tests import ROOT


@pytest.fixture
def copy(tmp_path):
    return Path(shutil.copytree(bundled_checkpoint(), tmp_path / "checkpoint"))


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "model-00001-of-00002.safetensors",
        "tokenizer_config.json",
        "preprocessor_config.json",
        "vae/config.json",
        "scheduler/scheduler_config.json",
    ],
)
def test_missing_file(copy, name):
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=name.rsplit("/", maxsplit=1)[-1].replace(".", r"\.")):
        HaploOmni.load(copy, device="cpu")


@pytest.mark.parametrize(
    "name", ["model-00002-of-00002.safetensors", "vae/diffusion_pytorch_model.safetensors"]
)
@pytest.mark.parametrize("fault", ["cut", "empty", "page", "longer"])
def test_damaged_weights(copy, name, fault):
    data = (copy / name).read_bytes()
    broken = {
        "cut": data[:-5000],
        "empty": b"",
        "page": b"<!doctype html><p>not found</p>",
        "longer": data + b"x",
    }
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


@pytest.mark.parametrize(
    ("weight_map", "said"),
    [
        ({"lm_head.weight": "model-00001-of-00009.safetensors"}, "model-00001-of-00009"),
        ({"lm_head.weight": "../outside.safetensors"}, "of its own folder"),
        ({"lm_head.weight": "/etc/outside.safetensors"}, "of its own folder"),
        ({"lm_head.weight": "..\\outside.safetensors"}, "of its own folder"),
        ({"lm_head.weight": "C:outside.safetensors"}, "of its own folder"),
        ({"lm_head.weight": "config.json"}, "of its own folder"),
        ({"lm_head.weight": 5}, "of its own folder"),
        ({}, "names no weights"),
        ([], "names no weights"),
        (None, "names no weights"),
        ("model.safetensors", "names no weights"),
    ],
)
def test_an_index_that_names_other_files(copy, weight_map, said):
    shutil.copyfile(copy / "model-00001-of-00002.safetensors", copy.parent / "outside.safetensors")
    (copy / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    with pytest.raises(CheckpointError, match=said) as caught:
        HaploOmni.load(copy, device="cpu")
    assert INDEX in str(caught.value)


def test_a_single_file_and_shards_are_the_same_weights(copy):
    shards = [load_file(file) for file in weight_files(copy)]
    tensors = {name: tensor for shard in shards for name, tensor in shard.items()}
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="two sets of weights"):
        HaploOmni.load(copy, device="cpu")
    (copy / INDEX).unlink()
    single, sharded = HaploOmni.load(copy, device="cpu"), HaploOmni.load(None, device="cpu")
    pairs = zip(single.model.state_dict().values(), sharded.model.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_an_autoencoder_in_shards(copy, bundled):
    shutil.rmtree(copy / "vae")
    bundled.vae.save_pretrained(copy / "vae", max_shard_size=2_000_000)
    assert len(weight_files(copy / "vae", "diffusion_pytorch_model")) > 1
    again = HaploOmni.load(copy, device="cpu").vae.state_dict().values()
    assert all(
        torch.equal(one, other) for one, other in zip(again, bundled.vae.state_dict().values(), strict=True)
    )


JSON_FILES = sorted(
    file.relative_to(bundled_checkpoint()).as_posix() for file in bundled_checkpoint().rglob("*.json")
)
DAMAGE = {
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda _: b"",
    "a list": lambda _: b"[1, 2]",
    "null": lambda _: b"null",
    "nested": lambda _: b"[" * 100_000,
    "another text": lambda _: b"<!doctype html><p>not found</p>",
    "no UTF-8": lambda data: data[:-3] + b"\xff\xfe}",
}


@pytest.mark.parametrize("fault", DAMAGE)
@pytest.mark.parametrize("name", JSON_FILES)
def test_damaged_json(copy, name, fault):
    file = copy / name
    file.write_bytes(DAMAGE[fault](file.read_bytes()))
    with pytest.raises(CheckpointError, match=re.escape(file.name)) as caught:
        HaploOmni.load(copy, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", JSON_FILES)
def test_a_byte_order_mark(copy, name):
    """Read where this program alone reads the file; told where libraries stumble over it."""
    file = copy / name
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    if name in (PROFILE_FILE, PREVIEW_FILE):
        assert HaploOmni.load(copy, device="cpu").profile.name == "HaploOmni tiny"
        return
    with pytest.raises(CheckpointError, match="byte order mark") as caught:
        HaploOmni.load(copy, device="cpu")
    assert file.name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("config.json", {"model_type": "llama"}),
        ("config.json", {"vocab_size": "many"}),
        ("config.json", {"pre_config": {"hidden_size": 129}}),
        ("config.json", {"pad_token_id": "x"}),
        ("config.json", {"patch_size": 0}),
        ("config.json", {"image_grid_pinpoints": []}),
        ("generation_config.json", {"eos_token_id": "end"}),
        ("generation_config.json", {"pad_token_id": 10**9}),
        ("preprocessor_config.json", {"image_mean": [0.5, 0.5]}),
        ("preprocessor_config.json", {"size": {"height": 7, "width": 7}}),
        ("preprocessor_config.json", {"rescale_factor": None}),
        ("video_processor/preprocessor_config.json", {"size": "large"}),
        ("video_processor/preprocessor_config.json", {"resample": 99}),
        ("processor_config.json", {"image_token": "<picture>"}),
        ("processor_config.json", {"num_image_tokens": 5}),
        ("tokenizer_config.json", {"model_max_length": "long"}),
        ("tokenizer_config.json", {"unk_token": ""}),
        ("chat_template.json", {"chat_template": "{% for"}),
        ("chat_template.json", {"chat_template": 5}),
        ("chat_template.json", {"chat_template": "no words"}),
        ("vae/config.json", {"_class_name": "AutoencoderKL"}),
        ("vae/config.json", {"latent_channels": 4}),
        ("vae/config.json", {"scaling_factor": 0}),
        ("vae/config.json", {"norm_num_groups": -1}),
        ("scheduler/scheduler_config.json", {"prediction_type": "guess"}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": "many"}),
    ],
)
def test_foreign_values(copy, name, changes):
    file = copy / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(CheckpointError, match=re.escape(file.name)) as caught:
        HaploOmni.load(copy, device="cpu")
    assert "\n" not in str(caught.value)


def test_names_that_are_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        resolve_checkpoint("./nowhere")
    with pytest.raises(CheckpointError, match="is a file"):
        resolve_checkpoint(__file__)
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        HaploOmni.load(tmp_path, device="cpu")


def test_the_command_line_says_the_same(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "app.py", "--checkpoint", tmp_path, "--port", "0"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert "has no config.json" in done.stderr and "Traceback" not in done.stderr


def test_devices_and_dtypes():
    cpu = resolve_device("cpu")
    assert resolve_dtype("auto", cpu) is torch.float32
    assert resolve_dtype("bfloat16", cpu) is torch.bfloat16
    assert resolve_device(torch.device("cpu")) == cpu and resolve_dtype(torch.float16, cpu) is torch.float16
    with pytest.raises(RequestError, match="int32"):
        resolve_dtype(torch.int32, cpu)
    for wrong in ("gpu", "cuda:99", "xpu"):
        with pytest.raises(RequestError, match=wrong.split(":")[0]):
            resolve_device(wrong)
    with pytest.raises(RequestError, match="int8"):
        resolve_dtype("int8", cpu)


def test_bundled_checkpoint_is_small_and_complete():
    files = [f for f in bundled_checkpoint().rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) <= 48 * 2**20
    names = {f.relative_to(bundled_checkpoint()).as_posix() for f in files}
    assert {"README.md", INDEX, "vae/config.json", "scheduler/scheduler_config.json", "preview.json"} <= names


def test_no_tracked_file_is_larger_than_hubs_take():
    """A hub refuses plain pushes of files over 10 MiB."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    files = [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    assert len(files) > 100
    assert [file.name for file in files if file.stat().st_size > 10 * 2**20] == []
