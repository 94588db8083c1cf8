"""How a scene is put into words: names, places, motions, captions, full descriptions."""

from __future__ import annotations

from core.scenes.motions import DIAGONALS
from core.scenes.scene import Scene, SceneObject

BORDERS = (0.38, 0.62)  # between the nine places, in fractions of the frame
NEAR_BORDER = 0.04  # of what lies nearer to a border nobody says where it is
VERBS = {
    "still": "stays still",
    "growing": "grows",
    "shrinking": "shrinks",
    "circling": "moves in a circle",
    "bouncing": "bounces",
    "zigzagging": "moves in a zigzag",
}
# where something that goes into this direction comes from, and where it goes
SIDE_BEHIND = {"left": "right", "right": "left", "up": "bottom", "down": "top"}
SIDE_AHEAD = {"left": "left", "right": "right", "up": "top", "down": "bottom"}
PARTICIPLES = {
    "stays": "staying",
    "grows": "growing",
    "shrinks": "shrinking",
    "enters": "entering",
    "leaves": "leaving",
    "bounces": "bouncing",
    "turns": "turning",
}


def article(word: str) -> str:
    """ "a" or "an", whichever goes before ``word``."""
    return "an" if word[0] in "aeiou" else "a"


def name(item: SceneObject, size: bool = False) -> str:
    """ "a red circle" or "a big red circle"."""
    words = [item.size, item.colour, item.shape] if size and item.size else [item.colour, item.shape]
    return f"{article(words[0])} {' '.join(words)}"


PLACES = tuple(
    f"{row} {column}".strip() or "center" for row in ("top", "", "bottom") for column in ("left", "", "right")
)


def place(x: float, y: float) -> str:
    """One of nine places on a three by three grid; "" too near to a border to say."""
    if any(abs(value - border) < NEAR_BORDER for value in (x, y) for border in BORDERS):
        return ""
    row = _third(y, ("top", "", "bottom"))
    column = _third(x, ("left", "", "right"))
    return f"{row} {column}".strip() or "center"


def _third(value: float, names: tuple[str, str, str]) -> str:
    """The name of the third of the frame that a coordinate falls into."""
    if value < BORDERS[0]:
        return names[0]
    return names[2] if value > BORDERS[1] else names[1]


def position(item: SceneObject) -> str:
    """Where the object is in the middle of its way; "" where nobody would say."""
    return place(item.x, item.y)


def background_name(scene: Scene) -> str:
    """The background's colour, and its texture if it has one: "navy" or "striped navy"."""
    return scene.background if scene.texture == "plain" else f"{scene.texture} {scene.background}"


def moves(item: SceneObject) -> str:
    """What it does, as a verb: "moves left", "enters from the top"."""
    if item.motion in VERBS:
        return VERBS[item.motion]
    if item.motion == "changing":
        return f"turns {item.becomes}"
    if item.motion == "entering":
        return f"enters from the {origin(item)}"
    if item.motion == "leaving":
        return f"leaves to the {goal(item)}"
    return f"moves {slantwise(item.motion) if item.motion in DIAGONALS else item.motion}"


def slantwise(motion: str) -> str:
    """ "up left" as "diagonally up and to the left"."""
    upright, aside = motion.split()
    return f"diagonally {upright} and to the {aside}"


def moving(item: SceneObject, speed: bool = False) -> str:
    """What it does, as a participle: "moving left", "standing still", "entering from the top"."""
    verb, _, rest = moves(item).partition(" ")
    text = f"{PARTICIPLES.get(verb, 'moving')} {rest}".strip()
    return f"{item.speed} {text}" if speed and item.speed else text


def origin(item: SceneObject) -> str:
    """The side an entering object comes from."""
    return SIDE_BEHIND[item.heading]


def goal(item: SceneObject) -> str:
    """The side an object goes to."""
    return SIDE_AHEAD[item.heading]


def listing(items: list[str]) -> str:
    """ "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def caption(scene: Scene, clip: bool, size: bool = False, speed: bool = False) -> str:
    """ "a red circle moving left on a black background".

    Three or more objects stand in order from left to right.

    Args:
        clip: whether motion is spoken of.
        size, speed: whether sizes and speeds are.
    """
    items = scene.objects
    where = background_name(scene)
    behind = f"on {article(where)} {where} background"
    if scene.in_turn and clip:
        first, second = (
            f"{name(item, size)} {moving(item)}" for item in sorted(items, key=lambda item: item.begin)
        )
        return f"{first}, then {second}, {behind}"
    if scene.together and clip:
        return f"{listing([name(item, size) for item in items])} moving {scene.together} {behind}"
    if len(items) == 3 and clip and any(item.motion != "still" for item in items):
        return f"{listing([f'{name(item, size)} {moving(item)}' for item in items])} {behind}"
    if len(items) > 2:
        return f"{listing([name(item, size) for item in sorted(items, key=lambda item: item.x)])} {behind}"
    resting = all(item.motion == "still" for item in items)
    if len(items) == 2 and (resting or not clip):
        return f"{name(items[0], size)} {scene.relation} {name(items[1], size)} {behind}"
    if len(items) == 2:
        first, second = (f"{name(item, size)} {moving(item)}" for item in items)
        return f"{first}, {scene.relation} {second}, {behind}"
    if not clip:
        return f"{name(items[0], size)} {behind}"
    motion = "that stays still" if resting else moving(items[0], speed)
    return f"{name(items[0], size)} {motion} {behind}"


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def description(scene: Scene, clip: bool) -> str:
    """A scene in words, complete: what the language prior reads where HaploOmni will see a picture."""
    items = scene.objects
    parts = []
    for item in items:
        words = [item.size, item.colour, item.shape, position(item)]
        if clip:
            words += [item.speed, moves(item)]
        parts.append(" ".join(word for word in words if word))
    order = f"; the first {scene.relation} the second" if scene.relation else ""
    if clip and scene.together:
        order += f"; moving {scene.together}"
    if clip and scene.in_turn:
        order += f"; the {'first' if items[0].begin < items[1].begin else 'second'} moves first"
    return f"{', '.join(parts)}{order}; {background_name(scene)}"
