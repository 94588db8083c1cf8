"""Predicted bytes against counted ones: on fake tensors of the 9B sizes, and on real small models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import DynamicCache

from core.config import HaploOmniConfig
from core.model.modeling import HaploOmniForConditionalGeneration
from quantization.layout import tensors
from quantization.memory import Decoder, Model, Request, activation_bytes, costs, decode_bytes, reading_bytes
from quantization.modes import Decode, Guidance, Mode, Offload, Precision, Tile, Weights
from quantization.weights import number_of_weights, weight_bytes
from tests.quantization.tracker import decoding_peak, denoising_peak, reading_peak

ROOT = Path(__file__).resolve().parents[2]
REFERENCES = [ROOT / "tests" / "parity" / "reference" / variant / "checkpoint" for variant in "ab"]
BUNDLED = ROOT / "examples" / "checkpoints" / "haploomni-tiny"
CONFIGS = {
    "9b": HaploOmniConfig,
    **{f.parent.name: lambda f=f: HaploOmniConfig.from_pretrained(f) for f in [BUNDLED, *REFERENCES]},
}
# wide enough that what is counted per token outweighs what is not
SMALL = {
    "vocab_size": 64,
    "base_config": {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 2, "num_attention_heads": 4},
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
def test_every_tensor_is_known_by_name_and_shape(name):
    config = CONFIGS[name]()
    with torch.device("meta"):
        model = HaploOmniForConditionalGeneration(config)
    have = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert {spec.name: spec.shape for spec in tensors(config)} == have
    assert number_of_weights(config) == model.num_parameters()
    full = sum(weight_bytes(config, Weights.FULL, Precision.BF16).values())
    assert full == 2 * model.num_parameters()


@pytest.mark.parametrize(("rows", "frames", "piece"), [(1, 3, 0), (2, 3, 4096), (1, 13, 4096)])
def test_denoising_at_9b_sizes(rows, frames, piece):
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = HaploOmniForConditionalGeneration._from_config(HaploOmniConfig(), dtype=torch.bfloat16).eval()
        for block in model.model.layers:
            block.mlp.piece = piece
        peak = denoising_peak(model, rows, (frames, 60, 90))
    predicted = activation_bytes(Model(HaploOmniConfig()), rows * frames * 1350, Precision.BF16, piece)
    assert predicted == pytest.approx(peak, rel=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("piece", [0, 256])
def test_denoising_of_a_real_small_model(dtype, piece):
    config = HaploOmniConfig(**SMALL)
    model = HaploOmniForConditionalGeneration(config).to(dtype).eval()
    for block in model.model.layers:
        block.mlp.piece = piece
    peak = denoising_peak(model, 2, (3, 32, 32))
    precision = Precision.FP32 if dtype == torch.float32 else Precision.BF16
    assert activation_bytes(Model(config), 2 * 3 * 256, precision, piece) == pytest.approx(peak, rel=0.1)


@pytest.mark.parametrize("tokens", [1024, 4096])
def test_reading_at_9b_sizes(tokens):
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = HaploOmniForConditionalGeneration._from_config(HaploOmniConfig(), dtype=torch.bfloat16).eval()
        peak = reading_peak(model, tokens)
    assert reading_bytes(Model(HaploOmniConfig()), tokens, Precision.BF16, 4096) == pytest.approx(peak, rel=0.1)


def test_keys_and_values_of_a_token():
    config = HaploOmniConfig(**SMALL)
    model = HaploOmniForConditionalGeneration(config).eval()
    with torch.no_grad():
        cache = model(input_ids=torch.zeros(1, 10, dtype=torch.long), past_key_values=DynamicCache()).past_key_values
    held = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert held == 10 * Model(config).cache_numbers
    assert Model(HaploOmniConfig()).cache_numbers == 193_024


@pytest.mark.parametrize("tile", [None, Tile(240, 360), Tile(96, 160)])
@pytest.mark.parametrize("frames", [9, 17])
def test_decoding_at_the_released_size(frames, tile):
    with FakeTensorMode(allow_non_fake_inputs=True):
        vae = AutoencoderKLCogVideoX(sample_height=480, sample_width=720)
        numbers = sum(p.numel() for p in vae.parameters())
        if tile:
            vae.enable_tiling(tile_sample_min_height=tile.height, tile_sample_min_width=tile.width)
        peak = decoding_peak(vae, frames, 480, 720)
    assert numbers == Decoder().numbers
    assert decode_bytes(Decoder(), Request(frames), Precision.FP32, tile) == pytest.approx(peak, rel=0.1)


@pytest.mark.parametrize("frames", [1, 9, 17])
@pytest.mark.parametrize(("channels", "layers"), [((16, 32, 64, 64), 1), ((40, 24, 48, 56), 2)])
def test_decoding_with_a_real_small_autoencoder(channels, layers, frames):
    vae = AutoencoderKLCogVideoX(block_out_channels=channels, layers_per_block=layers, norm_num_groups=8)
    decoder = Decoder.of(dict(vae.config), sum(p.numel() for p in vae.parameters()))
    peak = decoding_peak(vae.eval(), frames, 48, 80)
    assert decode_bytes(decoder, Request(frames, 48, 80), Precision.FP32, None) == pytest.approx(peak, rel=0.1)


def test_what_modes_save():
    model, request = Model(HaploOmniConfig()), Request()

    def of(**mode):
        return costs(model, Decoder(), Mode(**mode), request)

    full = of()
    assert of(weights=Weights.NF4).peak < of(weights=Weights.INT8).peak < full.peak
    assert of(weights=Weights.NF4_DOUBLE).peak < of(weights=Weights.NF4).peak
    assert of(guidance=Guidance.ONE_AT_A_TIME).denoise < full.denoise
    assert of(mlp_piece=4096).denoise < of(mlp_piece=0).denoise
    assert of(decode=Decode.TILED).decode < full.decode
    assert of(decode=Decode.CPU).decode == 0
    parts, blocks = of(offload=Offload.PARTS), of(offload=Offload.BLOCKS)
    assert parts.decode < full.decode - sum(full.weights.values()) + 1
    assert blocks.chat < 0.25 * full.chat
    assert blocks.host > 16 * 10**9
