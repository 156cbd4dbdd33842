"""How each edit comes about, for long instructions, with the slots of its phrasings; and what can be said of any."""

from __future__ import annotations

# an edit that is not among them is told by what is seen to move
WAYS: dict[str, str] = {
    # table, falling, any
    "pick_up": (
        "The robot arm moves above the {a}, goes down, closes its fingers around it and lifts it straight up, without "
        "turning it."
    ),
    "place": (
        "The robot arm grips the {a}, lifts it, carries it over to the {b}, sets it down on top, opens its fingers and "
        "draws back upwards."
    ),
    "push": (
        "The robot arm closes its fingers, goes down beside the {a} and pushes it along the ground to the {side}, "
        "touching it all the while."
    ),
    "hold_still": "The robot arm hangs where it is with its fingers as they are, and does not move in any frame.",
    "release": (
        "The rope that holds the {a} is cut, so that it falls, faster and faster, until it comes to rest on what lies "
        "below."
    ),
    "recolour": (
        "The surface of the {a} changes smoothly until it is {colour}, while its shape, its size and its place stay "
        "the same."
    ),
    "remove": "The {a} fades away until nothing of it is left, and the background behind it can be seen.",
    "add": "It is faint at first, and grows as solid as the other things; at the end it stands firmly on the ground.",
    "turn_into_star": "The {a} shrinks where it stands, and a star of the same colour grows in its place.",
    "nothing": "Nothing moves, nothing fades and nothing changes its colour, from the first frame to the last.",
    # tools
    "pick_up_tool": "The robot arm moves over to the {a}, closes its fingers on it and lifts it up into the air.",
    "put_down": (
        "The robot arm carries the {a}, which it holds already, over to its place, lowers it until it rests there, "
        "opens its fingers and draws back."
    ),
    "install": (
        "The robot arm brings the {a} to the tip of the {b}, in line with it, and slides it on; then it opens its "
        "fingers and draws back."
    ),
    # toppling
    "remove_support": (
        "The {a} is taken away, so that nothing holds up what stood on it; that drops until something else holds it."
    ),
    "topple": "The stack loses its balance and tips over to the {side}; its pieces tumble down and come to rest.",
    "roll": "The {a} starts to roll, is drawn down the slope of the {b} by gravity, and rolls out until it is at rest.",
    "domino": (
        "The {a} tips over and strikes the one next to it, which falls against the one after, until the last of them "
        "has fallen too."
    ),
    "release_weightless": (
        "The fingers of the robot arm open, but there is no gravity here: the {a} stays in the air, just where it was."
    ),
    "release_sideways": "The {a} is let go and falls {way}, since gravity pulls it that way, until something stops it.",
    # resizing
    "enlarge": "The {a} grows smoothly where it stands, its foot on the ground, with the same shape and colour.",
    "shrink": "The {a} shrinks smoothly where it stands, its foot on the ground, with the same shape and colour.",
    "resize": "Its size changes smoothly where it stands, its foot on the ground, with the same shape and colour.",
    # kitchen
    "pour": (
        "The vessel is lifted and tilted, so that the liquid runs down from its lip in a thin stream; then it is set "
        "down where it stood."
    ),
    "slice": (
        "A knife comes down from above and cuts right through the {a}; then the two halves of the {a} are drawn apart, "
        "with their cut faces to be seen."
    ),
    "open_jar": "The lid is twisted loose, lifted off the {a}, moved sideways and laid down beside it.",
    "close_jar": "The lid is lifted from beside the {a}, moved over it, set down on it and twisted tight.",
    "season": (
        "The shaker is lifted, turned over above the {a} and shaken, so that {what} falls in grains and stays on top; "
        "then the shaker is put back."
    ),
    # street
    "set_light": "The lamp that is lit goes out while the {colour} lamp lights up and glows.",
    "cross": "Step by step, {a} walks over to the crosswalk, and then stands still in the middle of it.",
    "replace_car": "The {a} turns into a {b} where it stands, with its wheels on the road.",
    "drive_to_line": "The {a} rolls along the road on turning wheels, slows down, and stops at the line.",
    # portrait
    "add_glasses": "The glasses are let down from above, swaying a little, until they sit before the eyes of the {b}.",
    "add_hat": "The {a} is let down from above, swaying a little, until it sits on the head of the {b}.",
    "take_off": (
        "Swaying a little, what the {b} wore is lifted up and out of the picture, so that what it hid can be seen."
    ),
    "change_background": "Behind the {b}, what was there before turns into {place} little by little.",
}
# true of every item; they fill up a caption that is too short
FILLERS = (
    "The camera does not move, turn or zoom.",
    "The picture keeps its drawn style, with the same lines and the same colours.",
    "Nothing is added to the picture that was not asked for.",
    "Each frame follows smoothly from the one before.",
    "The scene is seen from the same point of view, at the same distance, in every frame.",
    "All that has no part in the edit is the same to the last detail in the last frame.",
)
