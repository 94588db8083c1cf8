"""From people's words and media to what the model reads."""

from core.processor.image import HaploOmniImageProcessor
from core.processor.processor import HaploOmniProcessor
from core.processor.video import HaploOmniVideoProcessor

__all__ = ["HaploOmniImageProcessor", "HaploOmniProcessor", "HaploOmniVideoProcessor"]
