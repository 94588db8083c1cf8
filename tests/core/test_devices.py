"""Where things run and in which precision."""

from __future__ import annotations

import pytest
import torch

from core.devices import computes_bfloat16
from core.training.loop import processes


def test_a_gpu_computes_bfloat16_and_a_cpu_if_it_has_the_instructions(monkeypatch):
    assert computes_bfloat16(torch.device("cuda"))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not computes_bfloat16(torch.device("cpu"))


@pytest.mark.parametrize(
    ("quick", "chosen", "expected"), [(True, None, "bf16"), (False, None, "no"), (False, "bf16", "bf16")]
)
def test_training_mixes_precisions_only_where_that_is_quick(monkeypatch, tmp_path, quick, chosen, expected):
    built = {}
    monkeypatch.setattr(processes, "Accelerator", lambda **settings: built.update(settings))
    monkeypatch.setattr(processes, "computes_bfloat16", lambda _: quick)
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    if chosen:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", chosen)
    processes.build_accelerator(tmp_path)
    assert built["mixed_precision"] == expected
