"""Offloading on a second device that counts its bytes: equal results, freed memory."""

from __future__ import annotations

import gc

import bitsandbytes
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX

from core.config import HaploOmniConfig
from core.devices import working_device
from core.errors import QuantizationError
from core.model.modeling import HaploOmniForConditionalGeneration
from core.weights import bundled_checkpoint
from quantization.apply import apply_runtime, dispatch
from quantization.bnb import quantization_config, quantize_blocks
from quantization.memory import Model
from quantization.modes import BUFFERS, Decode, ExecutionMode, Offload, Precision, Weights
from tests.quantization.second_device import DEVICE, can_build, second_device

BUNDLED = bundled_checkpoint()
WEIGHTS = (Weights.FULL, Weights.NF4, Weights.NF4_DOUBLE)
SLACK = 4096  # bytes: 64 of padding a tensor, and single numbers

pytestmark = pytest.mark.skipif(
    not can_build(), reason="needs a C++ compiler and ninja to build the second device"
)


@pytest.fixture(scope="module", autouse=True)
def counter():
    """The byte counter of the second device."""
    return second_device()


def loaded(weights):
    how = quantization_config(HaploOmniConfig.from_pretrained(BUNDLED), weights, Precision.BF16)
    model = HaploOmniForConditionalGeneration.from_pretrained(
        BUNDLED, dtype=torch.bfloat16, quantization_config=how
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
    velocity = (
        model(latents=latents.to(DEVICE), timestep=torch.tensor([500]).to(DEVICE), prefix=prefix)
        .sample.float()
        .cpu()
    )
    if vae is None:
        return logits, velocity
    small = latents[:, :1, :, :4, :4].permute(0, 2, 1, 3, 4)
    return logits, velocity, vae.decode(small.to(working_device(vae), vae.dtype)).sample.float().cpu()


def weight_bytes_of(weights):
    model = Model(HaploOmniConfig.from_pretrained(BUNDLED))
    return sum(model.weight_bytes(weights, Precision.BF16).values())


@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda w: w.value)
def test_every_offload_gives_the_same_and_frees_memory(counter, weights):
    plain, vae = loaded(weights)
    dispatch(ExecutionMode(weights=weights), plain, vae, DEVICE)
    expected = used(plain)
    del plain, vae
    gc.collect()
    assert counter.live() < SLACK
    held = {}
    for offload in (Offload.EMBEDDINGS, Offload.MODEL, Offload.SEQUENTIAL):
        model, vae = loaded(weights)
        dispatch(ExecutionMode(weights=weights, offload=offload, decode=Decode.CPU), model, vae, DEVICE)
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
    assert held[Offload.MODEL] == pytest.approx(whole, rel=0.02), "the model alone, whole, after its turn"
    assert held[Offload.SEQUENTIAL] < held[Offload.EMBEDDINGS]


def test_model_and_autoencoder_take_turns(counter):
    model, vae = loaded(Weights.FULL)
    dispatch(ExecutionMode(), model, vae, DEVICE)
    expected = used(model, vae)
    both = counter.live()
    del model, vae
    gc.collect()
    model, vae = loaded(Weights.FULL)
    dispatch(ExecutionMode(offload=Offload.MODEL), model, vae, DEVICE)
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
    dispatch(
        ExecutionMode(weights=weights, offload=Offload.SEQUENTIAL, decode=Decode.CPU), model, vae, DEVICE
    )
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
    dispatch(ExecutionMode(offload=Offload.MODEL), model, vae, DEVICE)
    before = used(model, vae)[-1]
    apply_runtime(ExecutionMode(offload=Offload.MODEL, decode=Decode.CPU), model, vae)
    after = used(model, vae)[-1]
    assert {p.device.type for p in vae.parameters()} == {"cpu"}
    assert vae.dtype == torch.float32
    assert torch.allclose(before, after, atol=0.05)


def quantize(matrix, weights):
    nested = weights is Weights.NF4_DOUBLE
    bitsandbytes.nn.Params4bit(matrix, requires_grad=False, quant_type="nf4", compress_statistics=nested).to(
        DEVICE
    )


def peak_of(counter, work):
    """Bytes on the second device at the worst moment of some work, beyond those before."""
    gc.collect()
    before = counter.live()
    counter.reset_peak()
    work()
    return counter.peak() - before


@pytest.mark.parametrize("weights", [Weights.NF4, Weights.NF4_DOUBLE], ids=lambda w: w.value)
def test_blocks_to_be_streamed_are_quantized_on_the_device_one_at_a_time(counter, weights):
    mode = ExecutionMode(weights=weights, offload=Offload.SEQUENTIAL, decode=Decode.CPU)
    read, vae = loaded(weights)
    dispatch(mode, read, vae, DEVICE)
    expected = used(read)
    read_as = {name: p.data.clone() for name, p in read.named_parameters() if hasattr(p, "quant_state")}
    numbers = read.num_parameters()
    del read, vae
    gc.collect()
    model, vae = loaded(Weights.FULL)
    largest = max(
        (p for p in model.model.layers.parameters() if p.dim() == 2), key=torch.Tensor.numel
    ).detach()
    alone = peak_of(counter, lambda: quantize(largest.to(DEVICE), weights))
    together = peak_of(counter, lambda: quantize_blocks(model, weights, Precision.BF16, DEVICE))
    assert 0 < together <= alone + SLACK, "never more than one matrix on the device"
    gc.collect()
    assert counter.live() < SLACK
    dispatch(mode, model, vae, DEVICE)
    made = {name: p.data for name, p in model.named_parameters() if hasattr(p, "quant_state")}
    assert made.keys() == read_as.keys() and all(torch.equal(made[name], read_as[name]) for name in made)
    assert model.num_parameters() == numbers
    # the scales' own scales are rounded otherwise by the kernels of another device
    allowed = 0.05 if weights is Weights.NF4_DOUBLE else 0.0
    for want, have in zip(expected, used(model), strict=True):
        assert (have - want).norm() <= allowed * want.norm()
    with pytest.raises(QuantizationError, match=r"quantization\.export"):
        model.save_pretrained("nowhere")
