"""Reading untrusted images and clips, writing results."""

from core.media.images import read_image
from core.media.videos import Clip, probe_video, read_video, sampled_frames
from core.media.writer import write_clip, write_image

__all__ = ["Clip", "probe_video", "read_image", "read_video", "sampled_frames", "write_clip", "write_image"]
