"""Reading untrusted images and clips, writing results."""

from core.media.checks import check_opencv
from core.media.encoder import check_encoder
from core.media.images import read_image
from core.media.kinds import IMAGE_SUFFIXES, VIDEO_SUFFIXES, kind_of
from core.media.videos import Clip, probe_video, read_video, sampled_frames
from core.media.writer import write_clip, write_image

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Clip",
    "check_encoder",
    "check_opencv",
    "kind_of",
    "probe_video",
    "read_image",
    "read_video",
    "sampled_frames",
    "write_clip",
    "write_image",
]
