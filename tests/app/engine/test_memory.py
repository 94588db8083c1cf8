"""The plan the program runs by: refused in words, kept while running, adapted when memory runs out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from app.engine import memory as app_memory
from app.engine.memory import plan_memory
from app.errors import user_message
from app.launch import run
from app.services.estimates import loaded_model
from app.settings import Settings
from app.web.page import memory_line, weights_line
from core import DenoiseStep, GeneratedVideo, HaploOmni
from core.errors import QuantizationError, RequestError, ShortMemoryError
from quantization.export import export
from quantization.modes import Decode, Guidance, Offload, Precision, Weights
from quantization.planner import format_bytes
from quantization.speed import ThroughputEstimator, step_operations

BUNDLED = Path(__file__).resolve().parents[3] / "examples" / "checkpoints" / "haploomni-tiny"
ON_CPU = Settings(device="cpu")
SMALL = {"height": 64, "width": 64, "num_frames": 9, "num_inference_steps": 2, "seed": 1}
MIB = 2**20


def loaded(settings=ON_CPU):
    memory = plan_memory(settings)
    omni = HaploOmni.load(
        settings.checkpoint, str(memory.device), memory.dtype, settings.vae, memory.load_options()
    )
    memory.attach(omni)
    return memory, omni


def asked(omni, side=128, **more):
    return omni.video_request(
        "x", **{"height": side, "width": side, "num_frames": 9, "guidance_scale": 4.0, **more}
    )


def clip_of(omni, **more):
    *steps, last = omni.text_to_video("a red circle", **{**SMALL, **more})
    assert isinstance(last, GeneratedVideo)
    return last.frames, sum(isinstance(step, DenoiseStep) for step in steps)


def short_of_memory(monkeypatch, free):
    """A machine with ``free`` bytes of main memory left, whatever is loaded."""
    real = app_memory.hardware.detect

    def detect(device, ours=0):
        found = real(device)
        return replace(found, free_bytes=free + ours, host_free_bytes=free + ours)

    monkeypatch.setattr(app_memory.hardware, "detect", detect)


def test_the_bundled_model_stays_exact_on_a_cpu():
    memory = plan_memory(ON_CPU)
    assert memory.mode.weights is Weights.FULL
    assert memory.mode.precision is Precision.FP32
    assert memory.mode.decode is Decode.WHOLE
    assert memory.usage().held.startswith("full weights in fp32")


def test_the_line_counts_the_autoencoder():
    memory, omni = loaded()
    held = sum(p.numel() * p.element_size() for part in (omni.model, omni.vae) for p in part.parameters())
    assert memory.usage().weights_bytes == held
    assert f"weights {format_bytes(held)} (full weights in fp32" in memory_line(memory.usage())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (replace(ON_CPU, offload="sequential"), "no device to offload"),
        (replace(ON_CPU, dtype="float16"), "float16"),
        (replace(ON_CPU, memory="cpu", device="cuda"), "contradict"),
        (replace(ON_CPU, checkpoint="/nowhere/at/all"), "/nowhere/at/all"),
    ],
)
def test_what_cannot_be_is_refused_before_loading(settings, said, capsys, monkeypatch):
    monkeypatch.setattr(HaploOmni, "load", lambda *_, **__: pytest.fail("it was loaded"))
    # whatever versions are installed: they are not what is refused here
    assert run(replace(settings, port=0, untested=True)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error


def test_blocks_to_be_streamed_are_read_as_they_are_stored():
    """Then they are quantized on the card, block by block; another precision would first fill main memory."""
    memory = plan_memory(ON_CPU)
    memory.device = torch.device("cuda")
    streamed = replace(memory.mode, weights=Weights.NF4, offload=Offload.SEQUENTIAL, precision=Precision.BF16)
    memory.plan = replace(memory.plan, mode=streamed)
    assert (memory.load_options().quantization, memory.load_options().load_device) == (None, None)
    memory.plan = replace(memory.plan, mode=replace(streamed, precision=Precision.FP16))
    assert memory.load_options().quantization is not None
    memory.plan = replace(memory.plan, mode=replace(streamed, offload=Offload.NONE))
    assert (
        memory.load_options().quantization is not None and memory.load_options().load_device == memory.device
    )


def test_a_machine_too_small_for_anything(monkeypatch):
    short_of_memory(monkeypatch, 5 * MIB)
    with pytest.raises(QuantizationError, match="more memory"):
        plan_memory(ON_CPU)


def test_bitsandbytes_missing(monkeypatch):
    monkeypatch.setattr(app_memory.hardware, "is_available", lambda _: False)
    with pytest.raises(QuantizationError, match="package bitsandbytes"):
        plan_memory(replace(ON_CPU, weights="nf4"))
    assert plan_memory(ON_CPU).mode.weights is Weights.FULL


@pytest.mark.parametrize("weights", ["int8", "nf4", "nf4-double"])
def test_quantized_weights_answer_and_draw(weights):
    memory, omni = loaded(replace(ON_CPU, weights=weights))
    assert memory.mode.weights.value == weights
    assert "7.7 million parameters" in weights_line(loaded_model(omni)), (
        "of full weights as of quantized ones"
    )
    assert "Hello" in "".join(omni.chat([{"role": "user", "content": "Hello"}]))
    frames, _ = clip_of(omni)
    assert frames.std() > 0
    assert "quantization.export" in memory.loaded(3.0)


def test_a_pre_quantized_folder_is_a_checkpoint_like_any_other(tmp_path):
    folder = export(BUNDLED, tmp_path / "nf4", Weights.NF4)
    memory, omni = loaded(replace(ON_CPU, checkpoint=str(folder)))
    _, live = loaded(replace(ON_CPU, weights="nf4", dtype=memory.dtype))
    assert memory.mode.weights is Weights.NF4
    assert np.array_equal(clip_of(omni)[0], clip_of(live)[0])
    assert "would have taken" in memory.loaded(0.4)
    with pytest.raises(QuantizationError, match="already"):
        plan_memory(replace(ON_CPU, checkpoint=str(folder), weights="int8"))


def failing(function, times, calls):
    """``function`` that runs out of memory the first ``times``."""

    def call(*given, **named):
        calls.append(1)
        if len(calls) <= times:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return function(*given, **named)

    return call


def test_decoding_goes_on_in_tiles_and_keeps_the_denoised_latents(monkeypatch):
    memory, omni = loaded()
    wide = {"height": 128, "width": 192}  # larger than the smallest tile
    before, _ = clip_of(omni, **wide)
    steps: list[int] = []
    monkeypatch.setattr(omni.vae.decoder, "forward", failing(omni.vae.decoder.forward, 1, calls := []))
    forward = omni.model.forward
    monkeypatch.setattr(omni.model, "forward", failing(forward, 0, steps))
    after, shown = clip_of(omni, **wide)
    assert len(calls) > 2, "tile after tile"
    assert memory.mode.decode is Decode.TILED
    assert shown == 2
    assert len(steps) == 2 + 2  # a prefix for each prompt, and each step once
    assert np.abs(before.astype(int) - after).mean() < 6


def test_denoising_goes_on_one_prompt_at_a_time(monkeypatch):
    memory, omni = loaded()
    memory.plan = memory.plan_for(omni.video_request("a red circle", height=256, width=256, num_frames=49))
    before, _ = clip_of(omni)
    predict = omni.model.predict_noise
    monkeypatch.setattr(omni.model, "predict_noise", failing(predict, 1, []))
    after, _ = clip_of(omni)
    assert memory.mode.guidance is Guidance.ONE_AT_A_TIME
    assert np.abs(before.astype(int) - after).max() <= 1


def test_when_nothing_can_be_made_smaller_a_sentence_is_said_and_the_next_request_works(monkeypatch):
    _, omni = loaded()
    decode = omni.vae.decoder.forward
    monkeypatch.setattr(omni.vae.decoder, "forward", failing(decode, 100, []))
    with pytest.raises(ShortMemoryError, match="decoding the frames") as caught:
        clip_of(omni)
    assert "smaller size" in user_message(caught.value)
    monkeypatch.setattr(omni.vae.decoder, "forward", decode)
    assert clip_of(omni)[0].shape == (9, 64, 64, 3)


def test_a_conversation_that_ran_out_of_memory_is_read_again_from_where_it_was(monkeypatch):
    _, omni = loaded()
    ask = [{"role": "user", "content": "Hello"}]
    wanted = "".join(omni.chat(ask))
    omni.on_out_of_memory = lambda work: f"less while {work.value}"
    head, calls = omni.model.lm_head.forward, []

    def now_and_then(*given):
        calls.append(1)
        if len(calls) % 3 == 1:  # after the blocks have written their keys and values
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return head(*given)

    monkeypatch.setattr(omni.model.lm_head, "forward", now_and_then)
    assert "".join(omni.chat(ask)) == wanted
    assert len(calls) > 3


def test_a_clip_that_cannot_fit_is_refused_with_the_one_that_can(monkeypatch):
    memory, omni = loaded()
    short_of_memory(monkeypatch, 60 * MIB)
    estimate = memory.estimate(omni.video_request("x", height=256, width=256, num_frames=49))
    assert not estimate.fits
    assert "would fit" in estimate.text
    change = estimate.change
    assert change is not None
    assert memory.estimate(change).fits
    with pytest.raises(RequestError, match="would fit"):
        memory.plan_for(omni.video_request("x", height=256, width=256, num_frames=49))


def test_a_warm_up_tells_the_time_of_the_first_clip():
    memory, omni = loaded()
    assert memory.can_warm_up
    assert "after the first clip" in memory.estimate(asked(omni)).text
    assert len(list(memory.warm_up(omni))) == 3
    assert "about" in memory.estimate(asked(omni)).text
    unfinished = loaded()[0]
    next(work := unfinished.warm_up(omni))
    work.close()
    assert "after the first clip" in unfinished.estimate(asked(omni)).text


def test_times_are_learned():
    memory, omni = loaded()
    assert "after the first clip" in memory.estimate(asked(omni)).text
    memory.record_timing(asked(omni), 0.4, 2.0)
    assert "about 12 s" in memory.estimate(asked(omni)).text
    model, watch = memory.planner.model, ThroughputEstimator()
    small = asked(omni, 64, num_inference_steps=10, guidance_scale=1.0)
    large = asked(omni, 128, num_frames=17, num_inference_steps=10)
    watch.record_timing(model, small, 1.0, 1.0)
    assert watch.expected_s(model, small) == pytest.approx(11.0)
    assert watch.expected_s(model, large) > 10 * step_operations(model, large) / step_operations(model, small)


def test_as_many_chats_run_at_once_as_their_caches_have_room(monkeypatch):
    memory, _ = loaded()
    usage = memory.usage()
    for free_bytes, expected in ((0, 2), (10**13, 16), (4 * 5 * 4.096 * usage.cache_bytes + 100, 5)):
        now = replace(usage, free_bytes=int(free_bytes))
        monkeypatch.setattr(memory, "usage", lambda now=now: now)
        assert memory.chat_places() == expected
