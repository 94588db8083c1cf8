"""Offloading on a second device that counts its bytes: equal results, freed memory."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX

from core.devices import working_device
from core.model.modeling import HaploOmniForConditionalGeneration
from quantization.bnb import quantization_config
from quantization.memory import BUFFERS, Model
from quantization.modes import Decode, Mode, Offload, Precision, Weights
from quantization.running import place, run_as
from tests.quantization.second_device import DEVICE, can_build, second_device

BUNDLED = Path(__file__).resolve().parents[2] / "examples" / "checkpoints" / "haploomni-tiny"
WEIGHTS = (Weights.FULL, Weights.NF4, Weights.NF4_DOUBLE)
SLACK = 4096  # bytes: 64 of padding a tensor, and single numbers

pytestmark = pytest.mark.skipif(not can_build(), reason="needs a C++ compiler and ninja to build the second device")


@pytest.fixture(scope="module", autouse=True)
def counter():
    """The byte counter of the second device."""
    return second_device()


def loaded(weights):
    config = HaploOmniForConditionalGeneration.config_class.from_pretrained(BUNDLED)
    how = quantization_config(config, weights, Precision.BF16)
    model = HaploOmniForConditionalGeneration.from_pretrained(
        BUNDLED, dtype=torch.bfloat16, **({} if how is None else {"quantization_config": how})
    )
    vae = AutoencoderKLCogVideoX.from_pretrained(BUNDLED, subfolder="vae", torch_dtype=torch.bfloat16)
    return model.eval(), vae.eval()


@torch.no_grad()
def used(model, vae=None):
    """Words, noise and frames as this model gives them."""
    ids = torch.arange(5, 25)[None].to(DEVICE)
    logits = model(input_ids=ids).logits.float().cpu()
    prefix = model(input_ids=ids, return_prefix=True).prefix
    latents = torch.randn(1, 3, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    velocity = model(latents=latents.to(DEVICE), timestep=torch.tensor([500]).to(DEVICE), prefix=prefix).sample.float().cpu()
    if vae is None:
        return logits, velocity
    small = latents[:, :1, :, :4, :4].permute(0, 2, 1, 3, 4)
    return logits, velocity, vae.decode(small.to(working_device(vae), vae.dtype)).sample.float().cpu()


def weight_bytes_of(weights):
    return sum(
        Model(HaploOmniForConditionalGeneration.config_class.from_pretrained(BUNDLED))
        .weight_bytes(weights, Precision.BF16)
        .values()
    )


@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda w: w.value)
def test_every_offload_gives_the_same_and_frees_memory(counter, weights):
    plain, vae = loaded(weights)
    place(Mode(weights=weights), plain, vae, DEVICE)
    expected = used(plain)
    del plain, vae
    gc.collect()
    assert counter.live() < SLACK
    held = {}
    for offload in (Offload.EMBEDDINGS, Offload.PARTS, Offload.BLOCKS):
        model, vae = loaded(weights)
        place(Mode(weights=weights, offload=offload, decode=Decode.CPU), model, vae, DEVICE)
        for _ in range(2):  # the second pass finds blocks where the first left them
            for want, have in zip(expected, used(model), strict=True):
                assert torch.equal(want, have)
        gc.collect()
        held[offload] = counter.live()
        del model, vae
        gc.collect()
        assert counter.live() < SLACK
    whole = weight_bytes_of(weights)
    assert held[Offload.EMBEDDINGS] < whole
    assert held[Offload.PARTS] == pytest.approx(whole, rel=0.02), "the model alone, whole, after its turn"
    assert held[Offload.BLOCKS] < held[Offload.EMBEDDINGS]


def test_model_and_autoencoder_take_turns(counter):
    model, vae = loaded(Weights.FULL)
    place(Mode(), model, vae, DEVICE)
    expected, both = used(model, vae), counter.live()
    del model, vae
    gc.collect()
    model, vae = loaded(Weights.FULL)
    place(Mode(offload=Offload.PARTS), model, vae, DEVICE)
    assert counter.live() < SLACK
    for _ in range(2):
        have = used(model, vae)
        assert all(torch.equal(a, b) for a, b in zip(expected, have, strict=True))
        assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
        assert next(vae.parameters()).device == DEVICE
        assert counter.live() < both - 2 * model.num_parameters() + SLACK


@pytest.mark.parametrize("weights", [Weights.FULL, Weights.NF4], ids=lambda w: w.value)
def test_streamed_blocks_hold_two_of_each_shape(counter, weights):
    model, vae = loaded(weights)
    place(Mode(weights=weights, offload=Offload.BLOCKS, decode=Decode.CPU), model, vae, DEVICE)
    gc.collect()
    resident = counter.live()
    used(model)
    gc.collect()
    sizes = Model(model.config).weight_bytes(weights, Precision.BF16)
    parts = zip(("pre", "base", "post"), Model(model.config).parts, strict=True)
    buffers = sum(BUFFERS * sizes[name] // part.num_hidden_layers for name, part in parts)
    assert counter.live() - resident == pytest.approx(buffers, rel=0.02)
    assert {p.device.type for block in model.model.layers for p in block.parameters()} == {"cpu"}


def test_an_autoencoder_that_took_turns_can_move_to_the_cpu_for_good():
    model, vae = loaded(Weights.FULL)
    place(Mode(offload=Offload.PARTS), model, vae, DEVICE)
    before = used(model, vae)[-1]
    run_as(Mode(offload=Offload.PARTS, decode=Decode.CPU), model, vae)
    after = used(model, vae)[-1]
    assert {p.device.type for p in vae.parameters()} == {"cpu"}
    assert vae.dtype == torch.float32
    assert torch.allclose(before, after, atol=0.05)
