"""Ways to ask that training never uses: other words for the same, not other fillings of its patterns."""

from __future__ import annotations

ASK_HELD_OUT: dict[str, tuple[str, ...]] = {
    "colour": (
        "How would you describe {it} in terms of (colour|color)?",
        "Give me {it}'s (colour|color).",
        "(Colour|Color) of {it}?",
        "I can't make out the (colour|color) of {it}, help me.",
        "Which hue was {it} given?",
    ),
    "shape": (
        "Give me the name of {it}'s form.",
        "Which kind of outline has {it}?",
        "Shape of {it}?",
        "What am I looking at, is {it} a star or what?",
        "Identify {it}.",
    ),
    "count": (
        "Give me a head count of the (shapes|objects).",
        "The (shapes|objects) add up to how many?",
        "Number of (objects|shapes)?",
        "What's the total of (things|objects) here?",
    ),
    "count_of": (
        "Give me a head count of the {things}.",
        "The {things} add up to what number?",
        "Number of {things}?",
        "Total {things}?",
    ),
    "background": (
        "What's it all drawn on?",
        "Give me the backdrop.",
        "What (colour|color) fills the rest of the {medium}?",
        "Backdrop?",
        "And if you ignore the shapes, what is left?",
    ),
    "position": (
        "Point me to {it}.",
        "Give me the spot where {it} sits.",
        "Position of {it}?",
        "Help me locate {it}.",
        "If I wanted to touch {it}, where would I put my finger?",
    ),
    "size": (
        "Talk about how sizeable {it} is.",
        "Size of {it}?",
        "Is {it} a giant or a dwarf?",
        "Give me the dimensions of {it} in one word.",
        "Are we dealing with a big or a small thing in {it}?",
    ),
    "motion": (
        "Follow {it} with your eyes, what does it get up to?",
        "Movement of {it}?",
        "Which path does {it} take?",
        "Report on what {it} is up to.",
        "Where might {it} be headed?",
    ),
    "speed": (
        "Does {it} hurry?",
        "Speed of {it}?",
        "Is {it} in a rush or taking it easy?",
        "Give me {it}'s velocity in a word.",
        "Rate the tempo of {it}.",
    ),
    "relation": (
        "Say how {it} sits in relation to {other}.",
        "With {other} as the reference point, where do I find {it}?",
        "If you stand at {other}, in which direction is {it}?",
        "{it} and {other}: how do they lie to each other?",
    ),
    "neighbour": (
        "If I look {side} {other}, what do I find?",
        "Identify whatever is {side} {other}.",
        "Anything {side} {other}? Name it.",
        "{side} {other} I find what?",
    ),
    "caption": (
        "Put the {medium} into words.",
        "Talk me through this {medium}.",
        "Summarize the {medium}.",
        "Walk me through what's on display.",
    ),
    "yes_no": (
        "Would I find {thing} in there?",
        "Any sign of {thing}?",
        "Is {thing} among the things shown?",
        "I'm looking for {thing}, any luck?",
    ),
    "yes_no_state": (
        "Someone told me {it} is {state}; were they right?",
        "True or false: {it} is {state}?",
        "Confirm that {it} is {state}, please.",
        "Would it be fair to say that {it} is {state}?",
    ),
    "why_not": (
        "For what reason did nobody put a {thing} in?",
        "Where has the {thing} gone?",
        "I miss a {thing}, how so?",
        "What happened that we have no {thing}?",
    ),
    "which": (
        "Between {one} and {other}, pick the one that is {more}.",
        "If you had to choose, which one is {more}?",
        "Out of the pair, who's {more}?",
        "Rank the two: which comes out {more}?",
    ),
    "either": (
        "Take a pick for {it}: {a} or {b}?",
        "Of {a} and {b}, what fits {it}?",
        "Does {a} or does {b} apply to {it}?",
        "Settle it: {it}, {a} or {b}?",
    ),
    "first": (
        "Tell the story: what comes {when}?",
        "What kicks in {when}?",
        "Looking at the order, what do we get {when}?",
        "What do I have to watch for {when}?",
    ),
    "changed": (
        "Play spot the difference with these two.",
        "From one to the other, what's been altered?",
        "They are nearly alike, apart from what?",
        "What did somebody do between the two?",
    ),
}

HELD_AND_THAT = ("Same question for {it}.", "Now do {it}.", "{it}, too?")
HELD_WHEN = {"first": ("right at the outset", "as the opening act"), "then": ("finally", "to finish with")}
