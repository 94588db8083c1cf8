"""What people use: chat as a stream of words, text to video as a stream of denoising steps."""

from core.pipelines.haploomni import HaploOmni
from core.pipelines.text_to_video import DenoiseStep, GeneratedVideo
from core.requests import VideoRequest

__all__ = ["DenoiseStep", "GeneratedVideo", "HaploOmni", "VideoRequest"]
