"""How a scene is put into words: names, places, motions, captions, full descriptions."""

from __future__ import annotations

from core.training.scenes import Scene, SceneObject

BORDERS, NEAR_BORDER = (0.38, 0.62), 0.04  # of the nine places; nearer than this nobody asks where it is


def article(word: str) -> str:
    """ "a" or "an"."""
    return "an" if word[0] in "aeiou" else "a"


def name(item: SceneObject, size: bool = False) -> str:
    """ "a red circle" or "a big red circle"."""
    words = [item.size, item.colour, item.shape] if size and item.size else [item.colour, item.shape]
    return f"{article(words[0])} {' '.join(words)}"


PLACES = tuple(f"{row} {column}".strip() or "center" for row in ("top", "", "bottom") for column in ("left", "", "right"))


def place(x: float, y: float) -> str:
    """One of nine places on a three by three grid; "" too near to a border to say."""
    if any(abs(value - border) < NEAR_BORDER for value in (x, y) for border in BORDERS):
        return ""
    column = "left" if x < BORDERS[0] else "right" if x > BORDERS[1] else ""
    row = "top" if y < BORDERS[0] else "bottom" if y > BORDERS[1] else ""
    return f"{row} {column}".strip() or "center"


def position(item: SceneObject) -> str:
    """Where the object is in the middle of its way; "" where nobody would say."""
    return place(item.x, item.y)


def ground(scene: Scene) -> str:
    """ "navy" or "striped navy"."""
    return scene.background if scene.texture == "plain" else f"{scene.texture} {scene.background}"


def moves(item: SceneObject, speed: bool = False) -> str:
    """What it does, as a verb: "moves left", "enters from the top", "slowly moves up"."""
    verbs = {"still": "stays still", "growing": "grows", "shrinking": "shrinks"}
    if item.motion in verbs:
        return verbs[item.motion]
    if item.motion == "entering":
        return f"enters from the {_origin(item)}"
    if item.motion == "leaving":
        return f"leaves to the {_goal(item)}"
    return f"{item.speed} moves {item.motion}" if speed and item.speed else f"moves {item.motion}"


def moving(item: SceneObject, speed: bool = False) -> str:
    """What it does, as a participle: "moving left", "standing still", "entering from the top"."""
    verb, _, rest = moves(item).partition(" ")
    forms = {"stays": "staying", "grows": "growing", "shrinks": "shrinking", "enters": "entering", "leaves": "leaving"}
    text = f"{forms.get(verb, 'moving')} {rest}".strip()
    return f"{item.speed} {text}" if speed and item.speed else text


def _origin(item: SceneObject) -> str:
    return {"left": "right", "right": "left", "up": "bottom", "down": "top"}[item.heading]


def _goal(item: SceneObject) -> str:
    return {"left": "left", "right": "right", "up": "top", "down": "bottom"}[item.heading]


def listing(items: list[str]) -> str:
    """ "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def caption(scene: Scene, clip: bool, size: bool = False, speed: bool = False) -> str:
    """ "a red circle moving left on a black background"; three or more objects stand in order from left to right."""
    items, where = scene.objects, ground(scene)
    behind = f"on {article(where)} {where} background"
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
    parts = []
    for item in scene.objects:
        words = [item.size, item.colour, item.shape, position(item), *([item.speed, moves(item)] if clip else [])]
        parts.append(" ".join(word for word in words if word))
    order = f"; the first {scene.relation} the second" if scene.relation else ""
    return f"{', '.join(parts)}{order}; {ground(scene)}"
