"""How a scene is rendered: proportions of the shapes, edges, outlines, shadows. No caption speaks of it.

A model that has seen one renderer knows that renderer.
Training therefore varies all of it for what is to be understood and for the autoencoder.
Clips to generate keep the plain look.
Another renderer altogether, which only the evaluation uses, is in :mod:`core.evaluation.renderer`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from core.opencv import cv2
from core.scenes.rasterizer import EDGES, PLAIN_FORM, RGB, Form, composite, shape_mask

SHADOW_OFFSET = 0.12  # of the radius
SHADOW_BLUR = 0.1  # of the radius


@dataclass(frozen=True)
class Look:
    """How all shapes of a scene are drawn.

    Args:
        form: their proportions.
        edge: one of :data:`core.scenes.rasterizer.EDGES`.
        outline: its width as a fraction of the frame's shorter side; 0 for none.
        outline_tone: the outline's colour as a fraction of the object's own; above 1 towards white.
        shadow: how many of 255 levels a soft shadow darkens the background.
    """

    form: Form = PLAIN_FORM
    edge: str = "smooth"
    outline: float = 0.0
    outline_tone: float = 0.5
    shadow: float = 0.0


PLAIN = Look()


def sample_form(rng: random.Random) -> Form:
    """Proportions as other renderers have them."""
    return Form(
        star_inner=round(rng.uniform(0.4, 0.56), 2),
        heart_height=round(rng.uniform(0.88, 1.14), 2),
        corner=rng.choice((0.0, 0.0, round(rng.uniform(0.05, 0.25), 2))),
        ring_hole=round(rng.uniform(0.45, 0.7), 2),
        triangle_height=round(rng.uniform(0.88, 1.08), 2),
        tilt=float(rng.choice((0, 0, rng.randint(-10, 10)))),
    )


def sample_look(rng: random.Random) -> Look:
    """The plain look in two of five scenes, else any other."""
    if rng.random() < 0.4:
        return PLAIN
    return Look(
        sample_form(rng),
        rng.choice(EDGES),
        rng.choice((0.0, 0.0, rng.uniform(0.008, 0.016))),
        rng.choice((0.0, rng.uniform(0.4, 0.7), 1.5)),
        rng.choice((0.0, 0.0, 0.0, rng.uniform(10, 26))),
    )


def draw_shape(
    frame: np.ndarray, shape: str, centre: tuple[float, float], radius: float, rgb: RGB, look: Look
) -> None:
    """Draw one shape into a frame uint8 [H, W, 3], in place; centre (x, y) and radius in pixels."""
    height, width = frame.shape[:2]
    if look.shadow:
        away = SHADOW_OFFSET * radius
        below = shape_mask(shape, centre[0] + away, centre[1] + away, radius, height, width, look.form)
        soft = cv2.GaussianBlur(below, (0, 0), max(0.5, SHADOW_BLUR * radius)).astype(np.float32)
        frame[:] = np.clip(frame - (soft * (look.shadow / 255.0))[..., None], 0, 255)
    mask = shape_mask(shape, *centre, radius, height, width, look.form, look.edge)
    if not look.outline:
        composite(frame, mask, rgb)
        return
    # the outline's colour first, then the object's own on all but its rim
    composite(frame, mask, outline_colour(rgb, look.outline_tone))
    reach = max(1, round(look.outline * min(height, width)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    composite(frame, cv2.erode(mask, kernel), rgb)


def outline_colour(rgb: RGB, tone: float) -> RGB:
    """The colour darkened to ``tone`` of itself, or for a tone above 1 half way to white."""
    if tone > 1.0:
        red, green, blue = ((channel + 255) // 2 for channel in rgb)
    else:
        red, green, blue = (round(channel * tone) for channel in rgb)
    return red, green, blue
