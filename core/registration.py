"""Makes transformers' Auto classes find HaploOmni."""

from __future__ import annotations

from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor

from core.config import HaploOmniConfig
from core.model.modeling import HaploOmniForConditionalGeneration
from core.processor import HaploOmniImageProcessor, HaploOmniProcessor


def register_auto_classes() -> None:
    """Register the configuration, model, processor and image processor; a second call changes nothing."""
    AutoConfig.register(HaploOmniConfig.model_type, HaploOmniConfig, exist_ok=True)
    AutoModelForImageTextToText.register(HaploOmniConfig, HaploOmniForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(HaploOmniConfig, HaploOmniProcessor, exist_ok=True)
    AutoImageProcessor.register(
        HaploOmniConfig, slow_image_processor_class=HaploOmniImageProcessor, exist_ok=True
    )
