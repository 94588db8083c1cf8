"""The released layout in and out, and the 9B size on the meta device."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from core import HaploOmniConfig, HaploOmniForConditionalGeneration, HaploOmniProcessor
from core.errors import CheckpointError
from tests.conftest import REFERENCE

CHECKPOINT = REFERENCE / "b" / "checkpoint"


def same_numbers(first, second) -> bool:
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize("variant", ["a", "b"])
@pytest.mark.parametrize("shard_size", ["5GB", "1MB"])
def test_saves_what_it_read(variant, shard_size, tmp_path, reference_model, reference_processor):
    model = reference_model(variant)
    model.save_pretrained(tmp_path, max_shard_size=shard_size)
    reference_processor(variant).save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard_size == "1MB")
    original = load_file(REFERENCE / variant / "checkpoint" / "model.safetensors")
    written = {k: v for f in tmp_path.glob("model*.safetensors") for k, v in load_file(f).items()}
    assert set(original) - set(written) == {
        "patch_embed_cogvideo.text_proj.weight",
        "patch_embed_cogvideo.text_proj.bias",
    }
    assert all(torch.equal(written[k], original[k]) for k in written)
    assert same_numbers(
        HaploOmniForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32), model
    )
    again = HaploOmniProcessor.from_pretrained(tmp_path)
    talk = [{"role": "user", "content": "what moves?"}]
    assert torch.equal(again(talk)["input_ids"], reference_processor(variant)(talk)["input_ids"])


def test_auto_classes_find_it():
    config = AutoConfig.from_pretrained(CHECKPOINT)
    assert isinstance(config, HaploOmniConfig)
    assert isinstance(
        AutoModelForImageTextToText.from_pretrained(CHECKPOINT), HaploOmniForConditionalGeneration
    )
    assert isinstance(AutoProcessor.from_pretrained(CHECKPOINT), HaploOmniProcessor)


def altered(tmp_path, change) -> object:
    folder = tmp_path / "checkpoint"
    shutil.copytree(CHECKPOINT, folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda t: t.pop("model.layers.3.mlp.up_proj.bias"), "model.layers.3.mlp.up_proj.bias"),
        (lambda t: t.update({"model.foreign.weight": torch.zeros(2)}), "model.foreign.weight"),
    ],
)
def test_missing_and_unexpected_tensors_are_named(tmp_path, change, name):
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        HaploOmniForConditionalGeneration.from_pretrained(altered(tmp_path, change))


def test_pickled_weights_are_never_read(tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(CHECKPOINT, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save({"lm_head.weight": torch.zeros(1)}, folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        HaploOmniForConditionalGeneration.from_pretrained(folder)


def implied_parameters() -> int:
    """The released size's parameters, counted from the spec's table alone."""

    def block(width, heads, groups, hidden, layer_norm, qk_norm):
        head = width // heads
        attention = (
            width * heads * head
            + heads * head
            + 2 * (width * groups * head + groups * head)
            + width * heads * head
            + width
        )
        mlp = 2 * (width * hidden + hidden) + hidden * width + width
        norms = 2 * (width * (1 + layer_norm) + 6 * width + 2 * width + 2)
        return attention + mlp + norms + (4 * head if qk_norm else 0)

    def connector(width_in, width_out):
        return width_in * width_out + 2 * width_out + width_out**2 + width_out + 2 * width_out + 2

    pre, base, post, vocab = 1024, 3584, 1920, 152064
    total = 24 * block(pre, 16, 16, 4096, True, False) + 28 * block(base, 28, 4, 18944, False, False)
    total += 30 * block(post, 30, 30, 7680, True, True)
    total += vocab * pre + vocab * base + 3 * 14 * 14 * pre + (224 // 14) ** 2 * pre + pre + 2 * pre
    total += (
        connector(pre, base) + connector(base, post) + base
    )  # connectors without pre-norm, the norm between
    total += 2 * post + post * base + base + base  # post_norm, post_linear, post_scale
    total += post * 16 * 4 + post + post * pre + pre  # latent patches, v2t_projector
    total += post * 512 + 512 + 512 * 512 + 512 + 512 * post + post  # time embedding, its token
    total += (
        2 * post + 512 * 2 * post + 2 * post + 2 * post + post * 64 + 64
    )  # norm_final, norm_out, proj_out
    return total


def test_released_size_builds_on_the_meta_device():
    with torch.device("meta"):
        model = HaploOmniForConditionalGeneration(HaploOmniConfig())
    count = sum(p.numel() for p in model.parameters())
    assert count == implied_parameters()
    assert 8.5e9 < count < 10e9
    assert all(p.is_meta for p in model.parameters())


def test_config_round_trip(tmp_path):
    config = HaploOmniConfig.from_pretrained(CHECKPOINT)
    config.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    original = json.loads((CHECKPOINT / "config.json").read_text())
    for key in (
        "pre_config",
        "post_config",
        "pre_connector",
        "post_connector",
        "num_hidden_layers",
        "image_aspect_ratio",
    ):
        assert written[key] == original[key], key
