"""Quantized models: what stays full, saving and loading without loss, and the traps of CPUs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import bitsandbytes
import pytest
import torch
from safetensors.torch import load_file
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from app.engine.memory import plan_memory
from app.settings import Settings
from core import HaploOmni
from core.config import HaploOmniConfig
from core.errors import CheckpointError, QuantizationError
from core.files import UNFINISHED, weight_files
from core.model.modeling import HaploOmniForConditionalGeneration
from core.profile import released_profile
from core.weights import bundled_checkpoint, read_profile
from quantization import export as exporting
from quantization.__main__ import main as plan
from quantization.bnb import check_stored, finalize_bnb, full_modules, quantization_config, stored_weights
from quantization.export import export, main
from quantization.files import export_seconds
from quantization.modes import Precision, Weights
from quantization.random_checkpoint import random_checkpoint
from quantization.weights import tensor_specs, weight_bytes

BUNDLED = bundled_checkpoint()
QUANTIZED = (Weights.INT8, Weights.NF4, Weights.NF4_DOUBLE)
BF16 = Precision.BF16


def quantized(weights, settled=True):
    config = HaploOmniConfig.from_pretrained(BUNDLED)
    how = quantization_config(config, weights, BF16)
    model = HaploOmniForConditionalGeneration.from_pretrained(
        BUNDLED, dtype=torch.bfloat16, quantization_config=how
    ).eval()
    if settled:
        finalize_bnb(model, torch.bfloat16, stays_on_cpu=False)
    return model


@torch.no_grad()
def logits(model):
    return model(input_ids=torch.arange(5, 25)[None]).logits.float()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Folder of an export, by weights."""
    made: dict[Weights, Path] = {}

    def get(weights):
        if weights not in made:
            made[weights] = export(BUNDLED, tmp_path_factory.mktemp("export") / weights.value, weights)
        return made[weights]

    return get


@pytest.mark.parametrize("weights", QUANTIZED, ids=lambda w: w.value)
def test_exactly_the_matrices_of_the_blocks_are_quantized(weights):
    model = quantized(weights)
    kinds = (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt)
    small = {name for name, module in model.named_modules() if isinstance(module, kinds)}
    full = {name for name, module in model.named_modules() if type(module) is torch.nn.Linear}
    matrices = [f"self_attn.{letter}_proj" for letter in "qkvo"] + [
        f"mlp.{name}_proj" for name in ("gate", "up", "down")
    ]
    assert small == {f"model.layers.{i}.{name}" for i in range(len(model.model.layers)) for name in matrices}
    assert full == set(full_modules(model.config))
    assert {"lm_head", "proj_out", "v2t_projector", "temb_token", "model.pre_connector.affine"} <= full


@pytest.mark.parametrize("weights", QUANTIZED, ids=lambda w: w.value)
def test_predicted_bytes_are_those_of_real_layers(weights):
    model = quantized(weights)
    held = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        scales = (
            state.as_dict(packed=False).values() if state is not None else [getattr(parameter, "SCB", None)]
        )
        held += sum(
            one.numel() * one.element_size()
            for one in (parameter.data, *scales)
            if isinstance(one, torch.Tensor)
        )
    assert held == pytest.approx(
        sum(weight_bytes(tensor_specs(model.config), weights, BF16).values()), rel=0.005
    )


@pytest.mark.parametrize("weights", QUANTIZED, ids=lambda w: w.value)
def test_a_saved_and_reloaded_model_equals_the_live_one(weights, tmp_path):
    model = quantized(weights)
    before = logits(model)  # bitsandbytes alone would pack 4-bit matrices here, and save them wrongly
    model.save_pretrained(tmp_path)
    reloaded = HaploOmniForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    finalize_bnb(reloaded, torch.bfloat16, stays_on_cpu=False)
    assert torch.equal(logits(reloaded), before)
    assert torch.equal(logits(model), before)


def test_a_model_that_runs_packed_refuses_to_be_saved(tmp_path, monkeypatch):
    model = quantized(Weights.NF4, settled=False)
    for layer in model.modules():
        if isinstance(layer, bitsandbytes.nn.Linear4bit):
            monkeypatch.setattr(layer, "support_avx512bf16_for_cpu", True)
    finalize_bnb(model, torch.bfloat16, stays_on_cpu=True)
    with pytest.raises(QuantizationError, match=r"quantization\.export"):
        model.save_pretrained(tmp_path)


@pytest.mark.parametrize("weights", QUANTIZED, ids=lambda w: w.value)
def test_an_export_is_what_transformers_would_have_saved(weights, exported, tmp_path):
    model = quantized(weights)
    model.save_pretrained(tmp_path)
    theirs = load_file(tmp_path / "model.safetensors")
    folder = exported(weights)
    ours = {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    assert stored_weights(folder) is weights
    loaded = HaploOmniForConditionalGeneration.from_pretrained(folder, dtype=torch.bfloat16).eval()
    finalize_bnb(loaded, torch.bfloat16, stays_on_cpu=False)
    assert torch.equal(logits(loaded), logits(model))
    assert (folder / "vae" / "config.json").is_file()
    assert (folder / "haploomni.json").is_file()


def test_what_cannot_be_exported(exported, tmp_path, capsys, monkeypatch):
    with pytest.raises(QuantizationError, match="quantized already"):
        export(exported(Weights.NF4), tmp_path / "a", Weights.INT8)
    with pytest.raises(QuantizationError, match="no export"):
        export(BUNDLED, tmp_path / "a", Weights.FULL)
    with pytest.raises(QuantizationError, match="not empty"):
        export(BUNDLED, exported(Weights.NF4), Weights.NF4)
    cut = tmp_path / "cut"
    shutil.copytree(BUNDLED, cut)
    first = weight_files(BUNDLED)[0]
    (cut / first.name).write_bytes(first.read_bytes()[:-5])
    assert main(["--checkpoint", str(cut), "--out", str(tmp_path / "b")]) == 2
    assert "cut short" in capsys.readouterr().err
    monkeypatch.setattr(exporting, "is_available", lambda _: False)
    assert main(["--out", str(tmp_path / "c")]) == 2
    assert "pip install bitsandbytes" in capsys.readouterr().err
    assert main(["--checkpoint", str(tmp_path / "nowhere"), "--out", str(tmp_path / "d")]) == 2
    assert "no checkpoint folder" in capsys.readouterr().err


def test_a_half_written_export_is_never_taken_for_a_whole_one(tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "quantize", fail)
    with pytest.raises(KeyboardInterrupt):
        export(BUNDLED, tmp_path / "half", Weights.NF4)
    assert (tmp_path / "half" / UNFINISHED).exists()
    with pytest.raises(CheckpointError, match="half-written"):
        plan_memory(Settings(checkpoint=str(tmp_path / "half"), device="cpu"))
    with pytest.raises(CheckpointError, match="half-written"):
        HaploOmni.load(tmp_path / "half", device="cpu")
    assert plan(["plan", "--checkpoint", str(tmp_path / "half")]) == 2
    assert "half-written" in capsys.readouterr().err
    monkeypatch.undo()
    export(BUNDLED, tmp_path / "half", Weights.NF4, force=True)
    assert plan_memory(Settings(checkpoint=str(tmp_path / "half"), device="cpu")).mode.weights is Weights.NF4
    assert plan(["plan", "--checkpoint", str(tmp_path / "half"), "--json", "--size", "9x64x64"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["mode"]["weights"] == "nf4" and said["bytes"]["decode"] < 2**28, (
        "its own weights and autoencoder count"
    )


def test_a_checkpoint_quantized_another_way(exported, tmp_path):
    folder = exported(Weights.NF4)
    assert check_stored(folder, None) is Weights.NF4
    assert check_stored(folder, Weights.NF4) is Weights.NF4
    assert check_stored(BUNDLED, Weights.INT8) is Weights.INT8
    with pytest.raises(QuantizationError, match="quantized as nf4 already"):
        check_stored(folder, Weights.INT8)
    fp4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}
    for method, name in (({"quant_method": "gptq"}, "gptq"), (fp4, "fp4"), ("nf4", "must be an object")):
        (tmp_path / "config.json").write_text(json.dumps({"quantization_config": method}))
        with pytest.raises(QuantizationError, match=name):
            check_stored(tmp_path, None)


def test_random_weights_of_any_size(tmp_path):
    config = HaploOmniConfig.from_pretrained(BUNDLED)
    random_checkpoint(tmp_path / "one", config, seed=3, shard_bytes=2**20)
    random_checkpoint(tmp_path / "two", config, seed=3)
    index = json.loads((tmp_path / "one" / SAFE_WEIGHTS_INDEX_NAME).read_text())
    assert len(set(index["weight_map"].values())) > 3
    one, two = (HaploOmniForConditionalGeneration.from_pretrained(tmp_path / name) for name in ("one", "two"))
    assert all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    )
    assert torch.isfinite(logits(one)).all()
    profile = read_profile(tmp_path / "one")
    assert (
        profile.name == "HaploOmni with random weights"
        and profile.generation.height <= profile.generation_limits.max_side
    )
    other = random_checkpoint(tmp_path / "three", config, seed=4)
    third = HaploOmniForConditionalGeneration.from_pretrained(other)
    assert not torch.equal(third.lm_head.weight, one.lm_head.weight)


def test_random_weights_of_the_released_sizes_have_the_released_limits(tmp_path, monkeypatch):
    """Clips of 480 x 720 can be asked of them; no tensors are drawn here, which another test does."""
    monkeypatch.setattr("quantization.random_checkpoint.tensor_specs", lambda _: [])
    made = read_profile(random_checkpoint(tmp_path / "9b", HaploOmniConfig()))
    released = released_profile()
    assert (made.generation, made.generation_limits, made.generation_prompt) == (
        released.generation,
        released.generation_limits,
        released.generation_prompt,
    )
    assert made.name != released.name and made.domain != released.domain


@pytest.mark.parametrize(
    "record", ["{", "[]", "{}", '{"seconds": "long"}', '{"seconds": -1}', '{"seconds": NaN}', ""]
)
def test_a_damaged_record_of_an_export(record, tmp_path):
    assert export_seconds(tmp_path) is None
    (tmp_path / "export.json").write_text(record)
    with pytest.raises(CheckpointError, match=r"export\.json"):
        export_seconds(tmp_path)
