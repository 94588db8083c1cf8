"""The assembled model before it learns: three small priors in one stack, every modality as loud as wanted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from core.model.modeling import HaploOmniForConditionalGeneration
from core.schedule import build_scheduler
from core.training.data.noise import NoiseBatch
from core.training.data.packing import PackedBatch
from core.training.initialization.prescaling import measure_amplitudes, prescale, wanted_amplitudes
from core.training.stages.teachers import Teachers
from core.weights.prior_loading import token_settings
from core.weights.priors import build_from_priors

CONNECTOR = {"use_pre_norm": True, "use_affine_bias": True}
TINY = {
    "image_aspect_ratio": "anyres_max_1",
    "image_grid_pinpoints": [[84, 84]],
    "max_position_embeddings": 1024,
}


def assemble(
    teachers: Teachers, tokenizer: PreTrainedTokenizerBase, connector: dict[str, bool] | None = None
) -> HaploOmniForConditionalGeneration:
    """The small HaploOmni of three small priors.

    Args:
        teachers: the priors, which are not changed.
        tokenizer: the language prior's.
        connector: settings of both connectors; None for pre-scaling and a bias.
    """
    own = connector or CONNECTOR
    settings = {**TINY, **token_settings(tokenizer), "pre_connector": own, "post_connector": own}
    return build_from_priors(teachers.vision, teachers.language, teachers.video, **settings)


def amplitudes_and_scales(
    model: HaploOmniForConditionalGeneration, teachers: Teachers, batches: list[PackedBatch | NoiseBatch]
) -> dict[str, Any]:
    """Feature pre-scaling on real batches (paper section 3.2).

    Returns:
        ``before``: root mean squares as measured; ``wanted``: as they should be; ``factors``: connectors'.
    """
    device = model.lm_head.weight.device
    before = measure_amplitudes(model, build_scheduler(), batches, device)
    wanted = wanted_amplitudes(teachers.language, teachers.video, batches, device)
    factors = prescale(model, before, wanted)
    return {"before": before, "wanted": wanted, "factors": factors}


def write_amplitudes(report: dict[str, Any], folder: Path) -> None:
    """``amplitudes.json`` for people, and one line of ``metrics.jsonl`` for programs."""
    (folder / "amplitudes.json").write_text(json.dumps(report, indent=1) + "\n")
    line: dict[str, float] = {"step": 0}
    for when in ("before", "after"):
        for side, modalities in report.get(when, {}).items():
            line |= {f"amplitude {when}/{side}/{modality}": value for modality, value in modalities.items()}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
