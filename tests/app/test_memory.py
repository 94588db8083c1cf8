"""The plan the program runs by: refused in words, kept while running, adapted when memory runs out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from app import memory as app_memory
from app.errors import sentence
from app.launch import run
from app.memory import plan_memory
from app.page import weights_line
from app.settings import Settings
from core import GeneratedVideo, HaploOmni
from core.errors import RequestError, ShortMemoryError
from quantization.errors import QuantizationError
from quantization.export import export
from quantization.modes import Decode, Guidance, Precision, Weights
from quantization.speed import Stopwatch, step_operations

BUNDLED = Path(__file__).resolve().parents[2] / "examples" / "checkpoints" / "haploomni-tiny"
ON_CPU = Settings(device="cpu")
SMALL = {"height": 64, "width": 64, "num_frames": 9, "num_inference_steps": 2, "seed": 1}
MIB = 2**20


def loaded(settings=ON_CPU):
    keeper = plan_memory(settings)
    omni = HaploOmni.load(settings.checkpoint, str(keeper.device), keeper.dtype, settings.vae, keeper.holding())
    keeper.attach(omni)
    return keeper, omni


def clip_of(omni, **more):
    *steps, last = omni.text_to_video("a red circle", **{**SMALL, **more})
    assert isinstance(last, GeneratedVideo)
    return last.frames, len(steps)


def short_of_memory(monkeypatch, free):
    """A machine with ``free`` bytes of main memory left, whatever is loaded."""
    real = app_memory.hardware.detect

    def detect(device, ours=0):
        found = real(device)
        return replace(found, free_bytes=free + ours, host_free_bytes=free + ours)

    monkeypatch.setattr(app_memory.hardware, "detect", detect)


def test_the_bundled_model_stays_exact_on_a_cpu():
    keeper = plan_memory(ON_CPU)
    assert keeper.mode.weights is Weights.FULL
    assert keeper.mode.precision is Precision.FP32
    assert keeper.mode.decode is Decode.WHOLE
    assert "full weights in fp32" in keeper.line()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (replace(ON_CPU, offload="blocks"), "no device to offload"),
        (replace(ON_CPU, dtype="float16"), "float16"),
        (replace(ON_CPU, memory="cpu", device="cuda"), "contradict"),
        (replace(ON_CPU, checkpoint="/nowhere/at/all"), "/nowhere/at/all"),
    ],
)
def test_what_cannot_be_is_refused_before_loading(settings, said, capsys, monkeypatch):
    monkeypatch.setattr(HaploOmni, "load", lambda *_, **__: pytest.fail("it was loaded"))
    assert run(replace(settings, port=0)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error


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
    keeper, omni = loaded(replace(ON_CPU, weights=weights))
    assert keeper.mode.weights.value == weights
    assert "7.7 million parameters" in weights_line(SimpleNamespace(omni=omni)), "of full weights as of quantized ones"
    assert "Hello" in "".join(omni.chat([{"role": "user", "content": "Hello"}]))
    frames, _ = clip_of(omni)
    assert frames.std() > 0
    assert "quantization.export" in keeper.loaded(3.0)


def test_a_pre_quantized_folder_is_a_checkpoint_like_any_other(tmp_path):
    folder = export(BUNDLED, tmp_path / "nf4", Weights.NF4)
    keeper, omni = loaded(replace(ON_CPU, checkpoint=str(folder)))
    _, live = loaded(replace(ON_CPU, weights="nf4", dtype=keeper.dtype))
    assert keeper.mode.weights is Weights.NF4
    assert np.array_equal(clip_of(omni)[0], clip_of(live)[0])
    assert "would have taken" in keeper.loaded(0.4)
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
    keeper, omni = loaded()
    wide = {"height": 128, "width": 192}  # larger than the smallest tile
    keeper.prepare(omni.video_request("a red circle", num_frames=9, **wide))
    before, _ = clip_of(omni, **wide)
    steps: list[int] = []
    monkeypatch.setattr(omni.vae, "decode", failing(omni.vae.decode, 1, calls := []))
    forward = omni.model.forward
    monkeypatch.setattr(omni.model, "forward", failing(forward, 0, steps))
    after, shown = clip_of(omni, **wide)
    assert len(calls) == 2
    assert keeper.mode.decode is Decode.TILED
    assert shown == 2
    assert len(steps) == 2 + 2  # a prefix for each prompt, and each step once
    assert np.abs(before.astype(int) - after).mean() < 6


def test_denoising_goes_on_one_prompt_at_a_time(monkeypatch):
    keeper, omni = loaded()
    keeper.prepare(omni.video_request("a red circle", height=256, width=256, num_frames=49))
    before, _ = clip_of(omni)
    predict = omni.model._predict_noise
    monkeypatch.setattr(omni.model, "_predict_noise", failing(predict, 1, []))
    after, _ = clip_of(omni)
    assert keeper.mode.guidance is Guidance.ONE_AT_A_TIME
    assert np.abs(before.astype(int) - after).max() <= 1


def test_when_nothing_can_be_made_smaller_a_sentence_is_said_and_the_next_request_works(monkeypatch):
    _, omni = loaded()
    decode = omni.vae.decode
    monkeypatch.setattr(omni.vae, "decode", failing(decode, 100, []))
    with pytest.raises(ShortMemoryError, match="decoding the frames") as caught:
        clip_of(omni)
    assert "smaller size" in sentence(caught.value)
    monkeypatch.setattr(omni.vae, "decode", decode)
    assert clip_of(omni)[0].shape == (9, 64, 64, 3)


def test_a_conversation_that_ran_out_of_memory_is_read_again_from_where_it_was(monkeypatch):
    _, omni = loaded()
    ask = [{"role": "user", "content": "Hello"}]
    wanted = "".join(omni.chat(ask))
    omni.relieve = lambda work: f"less while {work.value}"
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
    keeper, omni = loaded()
    short_of_memory(monkeypatch, 60 * MIB)
    forecast = keeper.forecast(49, 256, 256, 25, 4.0)
    assert not forecast.fits
    assert "would fit" in forecast.text
    change = forecast.change
    assert change is not None
    assert keeper.forecast(change.frames, change.height, change.width, 25, 4.0).fits
    with pytest.raises(RequestError, match="would fit"):
        keeper.prepare(omni.video_request("x", height=256, width=256, num_frames=49))


def test_a_rehearsal_tells_the_time_of_the_first_clip():
    keeper, omni = loaded()
    assert keeper.can_rehearse
    assert "after the first clip" in keeper.forecast(9, 128, 128, 25, 4.0).text
    assert len(list(keeper.rehearse(omni))) == 3
    assert "about" in keeper.forecast(9, 128, 128, 25, 4.0).text
    unfinished = loaded()[0]
    next(work := unfinished.rehearse(omni))
    work.close()
    assert "after the first clip" in unfinished.forecast(9, 128, 128, 25, 4.0).text


def test_times_are_learned():
    keeper, omni = loaded()
    assert "after the first clip" in keeper.forecast(9, 128, 128, 25, 4.0).text
    keeper.learn(omni.video_request("x", height=128, width=128, num_frames=9), 0.4, 2.0)
    assert "about 12 s" in keeper.forecast(9, 128, 128, 25, 4.0).text
    model, watch = keeper.planner.model, Stopwatch()
    small, large = app_memory.request_of(9, 64, 64, 1.0), app_memory.request_of(17, 128, 128, 4.0)
    watch.learn(model, small, 1.0, 1.0)
    assert watch.expected_s(model, small, 10) == pytest.approx(11.0)
    assert watch.expected_s(model, large, 10) > 10 * step_operations(model, large) / step_operations(model, small)
