"""What a single shape can do: its motions, their paths, and the speeds that people have words for."""

from __future__ import annotations

from math import cos, pi, sin

DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
SLANT = 0.8  # of a straight path's travel, along each axis
DIAGONALS = {
    "up left": (-SLANT, -SLANT),
    "up right": (SLANT, -SLANT),
    "down left": (-SLANT, SLANT),
    "down right": (SLANT, SLANT),
}
STRAIGHT = DIRECTIONS | DIAGONALS
PATHS = ("circling", "bouncing", "zigzagging")
# the order decides which combinations are held out: new motions go to the end
MOTIONS = (
    "still", "left", "right", "up", "down", "growing", "shrinking", "entering", "leaving",
    *DIAGONALS, *PATHS, "changing",
)  # fmt: skip
# an entering or leaving object may not be there in the middle of its clip
PICTURE_MOTIONS = tuple(motion for motion in MOTIONS if motion not in ("entering", "leaving"))
IN_PLACE = ("still", "growing", "shrinking", "changing")  # where it is can be said of the whole clip
TOGETHER = ("apart", "towards each other", "past each other")  # what two or three things can do together
SLOW = (0.16, 0.24)  # travel of what moves slowly, in fractions of the frame
FAST = (0.5, 0.62)  # and of what moves quickly
BOUNCES = 2
ZIGZAGS = 2
SWING = 0.14  # of a zigzag to either side
FIRST_PART = (0.0, 0.45)  # of a clip in which one thing moves after another
LAST_PART = (0.55, 1.0)
TURNED = 0.7  # a changing colour begins to change in the middle of the clip and is done by then


def offset(motion: str, heading: str, travel: float, phase: float, time: float) -> tuple[float, float]:
    """How far from its place in the middle of the clip a shape is at ``time`` in [0, 1].

    Args:
        motion, heading: of the object; the heading is where something that enters, leaves or zigzags goes.
        travel: length of a straight path, height of a bounce, radius of a circle.
        phase: of a circle: the angle at the middle of the clip, in turns.
    """
    way = time - 0.5
    if motion == "circling":
        angle = 2 * pi * (phase + way)
        middle = 2 * pi * phase
        return travel * (cos(angle) - cos(middle)), travel * (sin(angle) - sin(middle))
    if motion == "bouncing":
        return 0.0, -travel * abs(sin(pi * BOUNCES * time))
    direction = STRAIGHT.get(heading or motion)
    if direction is None:
        return 0.0, 0.0
    x, y = direction[0] * travel * way, direction[1] * travel * way
    if motion == "zigzagging":
        aside = SWING * _triangle(ZIGZAGS * time)
        return (x, y + aside) if direction[1] == 0.0 else (x + aside, y)
    return x, y


def _triangle(turns: float) -> float:
    """A triangle wave of period 1 from 0 by 1 and -1 back to 0."""
    part = turns % 1.0
    if part < 0.25:
        return 4 * part
    return 2 - 4 * part if part < 0.75 else 4 * part - 4


def growth(motion: str, travel: float, time: float) -> float:
    """The radius at ``time`` as a fraction of the radius in the middle of the clip."""
    sign = {"growing": 1.0, "shrinking": -1.0}.get(motion, 0.0)
    return 1.0 + sign * travel * (time - 0.5)


def turned(time: float) -> float:
    """How far a changing colour has changed at ``time``, from 0 to 1."""
    return min(1.0, max(0.0, (time - 0.5) / (TURNED - 0.5)))
