"""The one door to OpenCV, so that a machine it cannot run on hears one sentence."""

from __future__ import annotations

from core.errors import MediaError

try:
    import cv2
except ImportError as error:
    if "lib" in str(error) and ".so" in str(error):
        raise MediaError(
            f"OpenCV, which reads clips, cannot start: {error}; install the system's libraries for it "
            "(Debian and Ubuntu: apt-get install libgl1 libglib2.0-0) and start again."
        ) from error
    raise MediaError(
        f"OpenCV, which reads clips, cannot start: {error}; install it again with "
        "'pip install --force-reinstall opencv-python' and start again."
    ) from error

__all__ = ["cv2"]
