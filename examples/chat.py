"""Ask the bundled model about a picture and a clip: ``python examples/chat.py``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core import HaploOmni

MEDIA = Path(__file__).resolve().parent / "media"


def main() -> None:
    """Two turns about one picture, then one about a clip."""
    omni = HaploOmni.load()
    picture = {"type": "image", "path": MEDIA / "heart.png"}
    messages = [{"role": "user", "content": [picture, {"type": "text", "text": "What colour is it?"}]}]
    for follow_up in ("And its shape?", None):
        answer = "".join(omni.chat(messages))
        print(answer)
        messages.append({"role": "assistant", "content": answer})
        if follow_up:
            messages.append({"role": "user", "content": follow_up})
    clip = {"type": "video", "path": MEDIA / "circle_left.mp4", "num_frames": 4}
    question = {"type": "text", "text": "How does it move?"}
    print("".join(omni.chat([{"role": "user", "content": [clip, question]}])))


if __name__ == "__main__":
    main()
