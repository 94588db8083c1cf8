"""Predicted bytes against counted ones: on fake tensors of the 9B sizes, and on real small models."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import DynamicCache

from core.config import HaploOmniConfig
from core.model.modeling import HaploOmniForConditionalGeneration
from core.model.outputs import CACHE_FIELD
from core.weights import bundled_checkpoint
from quantization.memory import Decoder, Model, Workload, activation_bytes, costs, decode_bytes, reading_bytes
from quantization.modes import Decode, ExecutionMode, Guidance, Offload, Precision, Tile, Weights
from quantization.weights import PARTS, tensor_specs, weight_bytes
from tests.quantization.tracker import decoding_peak, denoising_peak, reading_peak, released_model

REFERENCES = [Path(__file__).parents[1] / "parity" / "reference" / variant / "checkpoint" for variant in "ab"]
CONFIGS = {"9b": HaploOmniConfig} | {
    folder.parent.name: partial(HaploOmniConfig.from_pretrained, folder)
    for folder in (bundled_checkpoint(), *REFERENCES)
}
NINE_B_BYTES = {
    "embeddings": 311_427_072,
    "pre": 806_928_576,
    "base": 13_056_970_976,
    "post": 3_542_761_200,
    "connectors": 69_746_952,
    "noise": 12_847_232,
    "lm_head": 1_089_994_752,
}
# wide enough that what is counted per token outweighs what is not
SMALL = {
    "vocab_size": 64,
    "base_config": {
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    "pre_config": {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "use_pe": False,
    },
    "post_config": {
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "use_pe": False,
    },
    "num_key_value_heads": 4,
    "image_token_index": 62,
    "video_token_index": 63,
    "eos_token_id": 1,
    "pad_token_id": 0,
}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_tensor_belongs_to_a_part(name):
    config = CONFIGS[name]()
    specs = tensor_specs(config)
    layers = {part: config.part(part).num_hidden_layers for part in ("pre", "base", "post")}
    for part in PARTS:
        matrices = [spec for spec in specs if spec.part == part and spec.quantizable]
        assert len(matrices) == 7 * layers.get(part, 0), "the seven matrices of every block, nothing else"
        assert all(len(spec.shape) == 2 for spec in matrices)
    widths = {(spec.part, min(spec.shape)) for spec in specs if spec.name.endswith("self_attn.q_proj.weight")}
    assert widths == {(part, config.part(part).hidden_size) for part in layers}
    with torch.device("meta"):
        model = HaploOmniForConditionalGeneration(config)
    assert sum(spec.num_elements for spec in specs) == model.num_parameters()
    assert sum(weight_bytes(specs, Weights.FULL, Precision.BF16).values()) == 2 * model.num_parameters()


def test_what_the_parts_of_9b_hold():
    specs = tensor_specs(HaploOmniConfig())
    assert len(specs) == 2241
    assert weight_bytes(specs, Weights.FULL, Precision.BF16) == NINE_B_BYTES


@pytest.mark.parametrize(("rows", "frames", "chunk_size"), [(1, 3, 0), (2, 3, 4096), (1, 13, 4096)])
def test_denoising_at_9b_sizes(rows, frames, chunk_size):
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = released_model()
        for block in model.model.layers:
            block.mlp.chunk_size = chunk_size
        peak = denoising_peak(model, rows, (frames, 60, 90))
    predicted = activation_bytes(Model(HaploOmniConfig()), rows * frames * 1350, Precision.BF16, chunk_size)
    assert predicted == pytest.approx(peak, rel=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk_size", [0, 256])
def test_denoising_of_a_real_small_model(dtype, chunk_size):
    config = HaploOmniConfig(**SMALL)
    model = HaploOmniForConditionalGeneration(config).to(dtype).eval()
    for block in model.model.layers:
        block.mlp.chunk_size = chunk_size
    peak = denoising_peak(model, 2, (3, 32, 32))
    precision = Precision.FP32 if dtype == torch.float32 else Precision.BF16
    assert activation_bytes(Model(config), 2 * 3 * 256, precision, chunk_size) == pytest.approx(peak, rel=0.1)


@pytest.mark.parametrize("tokens", [1024, 4096])
def test_reading_at_9b_sizes(tokens):
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = released_model()
        peak = reading_peak(model, tokens)
    assert reading_bytes(Model(HaploOmniConfig()), tokens, Precision.BF16, 4096) == pytest.approx(
        peak, rel=0.1
    )


def test_keys_and_values_of_a_token():
    config = HaploOmniConfig(**SMALL)
    model = HaploOmniForConditionalGeneration(config).eval()
    with torch.no_grad():
        cache = model(input_ids=torch.zeros(1, 10, dtype=torch.long), cache=DynamicCache())[CACHE_FIELD]
    held = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert held == 10 * Model(config).kv_elements_per_token
    assert Model(HaploOmniConfig()).kv_elements_per_token == 193_024


@pytest.mark.parametrize("tile", [None, Tile(240, 360), Tile(96, 160)])
@pytest.mark.parametrize("frames", [9, 17])
def test_decoding_at_the_released_size(frames, tile):
    with FakeTensorMode(allow_non_fake_inputs=True):
        vae = AutoencoderKLCogVideoX(sample_height=480, sample_width=720)
        numbers = sum(p.numel() for p in vae.parameters())
        if tile:
            vae.enable_tiling(tile_sample_min_height=tile.height, tile_sample_min_width=tile.width)
        peak = decoding_peak(vae, frames, 480, 720)
    assert numbers == Decoder().num_elements
    assert decode_bytes(Decoder(), Workload.of_size(frames).clip, Precision.FP32, tile) == pytest.approx(
        peak, rel=0.1
    )


@pytest.mark.parametrize("frames", [1, 9, 17])
@pytest.mark.parametrize(("channels", "layers"), [((16, 32, 64, 64), 1), ((40, 24, 48, 56), 2)])
def test_decoding_with_a_real_small_autoencoder(channels, layers, frames):
    vae = AutoencoderKLCogVideoX(block_out_channels=channels, layers_per_block=layers, norm_num_groups=8)
    decoder = Decoder.of(dict(vae.config), sum(p.numel() for p in vae.parameters()))
    peak = decoding_peak(vae.eval(), frames, 48, 80)
    assert decode_bytes(
        decoder, Workload.of_size(frames, 48, 80).clip, Precision.FP32, None
    ) == pytest.approx(peak, rel=0.1)


def test_what_modes_save():
    model = Model(HaploOmniConfig())
    workload = Workload.of_size()

    def of(**mode):
        return costs(model, Decoder(), ExecutionMode(**mode), workload)

    full = of()
    assert of(weights=Weights.NF4).peak < of(weights=Weights.INT8).peak < full.peak
    assert of(weights=Weights.NF4_DOUBLE).peak < of(weights=Weights.NF4).peak
    assert of(guidance=Guidance.ONE_AT_A_TIME).denoise < full.denoise
    assert of(mlp_chunk_size=4096).denoise < of(mlp_chunk_size=0).denoise
    assert of(decode=Decode.TILED).decode < full.decode
    assert of(decode=Decode.CPU).decode == 0
    turns = of(offload=Offload.MODEL)
    assert turns.decode <= full.decode - sum(turns.weights.values())
    assert 0 < turns.decoding == full.decoding < turns.decode
    streamed = of(offload=Offload.SEQUENTIAL)
    assert streamed.chat < 0.25 * full.chat
    assert streamed.host > 16 * 10**9
