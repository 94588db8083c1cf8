"""Make a clip with the bundled model.

python examples/text_to_video.py "a red circle moving left" circle.mp4
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core import DenoiseStep, GeneratedVideo, HaploOmni

PROMPT = "a red circle moving left on a black background"


def main(prompt: str = PROMPT, path: str = "outputs/clip.mp4") -> None:
    """Print every step and write the clip."""
    for item in HaploOmni.load().text_to_video(prompt, seed=1):
        if isinstance(item, DenoiseStep):
            print(f"step {item.index} of {item.total}", end="\r")
        elif isinstance(item, GeneratedVideo):
            print(f"\nwritten: {item.save(path)}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
