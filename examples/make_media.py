"""Draw the example pictures and clips of ``examples/media``.

The pixels are the same every time; another ffmpeg may pack clips into other bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core.media import write_clip, write_image
from core.scenes.rasterizer import BACKGROUNDS, COLOURS
from core.scenes.scene import Scene, SceneObject, render

MEDIA = Path(__file__).resolve().parent / "media"
SIZE = 336


def item(
    colour: str,
    shape: str,
    x: float,
    y: float,
    radius: float,
    motion: str = "still",
    travel: float = 0.0,
    heading: str = "",
) -> SceneObject:
    """An object in its plain colour; places, radius and travel in fractions of the frame."""
    return SceneObject(colour, shape, x, y, radius, motion, travel, COLOURS[colour], heading)


def scene(background: str, *objects: SceneObject, texture: str = "plain") -> Scene:
    """A scene; the nearest object comes first."""
    return Scene(background, objects, BACKGROUNDS[background], texture)


PICTURES = {
    "heart": scene("navy", item("pink", "heart", 0.5, 0.5, 0.3)),
    "star": scene("black", item("yellow", "star", 0.35, 0.6, 0.27)),
    "ring": scene("brown", item("white", "ring", 0.6, 0.4, 0.28)),
    "three": scene(
        "gray",
        item("red", "circle", 0.22, 0.3, 0.15),
        item("blue", "square", 0.55, 0.7, 0.16),
        item("green", "triangle", 0.8, 0.28, 0.15),
    ),
    "behind": scene(
        "brown",
        item("yellow", "star", 0.4, 0.52, 0.17),
        item("blue", "circle", 0.58, 0.48, 0.24),
        texture="checkered",
    ),
    "beside": scene(
        "navy",
        item("red", "square", 0.26, 0.4, 0.18),
        item("white", "ring", 0.74, 0.55, 0.17),
        texture="striped",
    ),
}
CLIPS = {
    "circle_left": scene("black", item("red", "circle", 0.5, 0.5, 0.2, "left", 0.5)),
    "square_growing": scene("navy", item("orange", "square", 0.5, 0.5, 0.22, "growing", 1.0)),
    "triangle_up": scene("gray", item("green", "triangle", 0.4, 0.5, 0.2, "up", 0.5)),
    "heart_entering": scene(
        "black", item("pink", "heart", 0.12, 0.5, 0.24, "entering", 0.76, "right"), texture="dotted"
    ),
    "two": scene(
        "navy", item("orange", "circle", 0.26, 0.5, 0.18, "up", 0.4), item("purple", "ring", 0.74, 0.5, 0.18)
    ),
}


def main() -> None:
    """Write the pictures as PNG and the clips, 17 frames at 8 a second, as MP4."""
    for name, picture in PICTURES.items():
        write_image(render(picture, SIZE, SIZE)[0], MEDIA / f"{name}.png")
    for name, clip in CLIPS.items():
        write_clip(render(clip, SIZE, SIZE, 17), MEDIA / f"{name}.mp4", fps=8)


if __name__ == "__main__":
    main()
