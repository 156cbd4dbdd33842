"""Properties of every item: the same bytes from the same seed, honest words, and motion that obeys physics."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import string

import numpy as np
import pytest

from chronoedit.world import FIRST_EVALUATION_SEED, FRAMES, SCENES, Item, sample_item
from chronoedit.world.checks import CHECKS, gripped, overlap_radii, supported, touched
from chronoedit.world.grammar import meant_by, references
from chronoedit.world.language import PHRASES, say
from chronoedit.world.physics import GRAVITY_PX_S2, ease, gap_px, resting_gap_px, simulate
from chronoedit.world.render import id_mask, render
from chronoedit.world.scenes.falling import DURATION_S
from chronoedit.world.splits import HARD_EDITS
from chronoedit.world.state import ARM_ID, COLOURS, WORLD_SIZE, Arm, Backdrop, Body, State

EDITS = [(family, edit) for family, scene in SCENES.items() for edit in scene.edits]
SIMULATED = ("falling", "toppling")  # the last digits of a simulation are the machine's
# others may say "the traffic light turns red", which is about a lamp
CALLED_BY_NAME = ("table", "falling", "any", "star", "tools", "resizing")
# edits after which the subject covers the same pixels
IN_PLACE = ("recolour", "set_light", "change_background", "release_weightless")
# what an edit changes besides its subject: kinds of parts, or the things that it sets in motion
ALSO_CHANGES: dict[str, frozenset[str] | None] = {
    "pour": frozenset({"drink"}),
    "slice": frozenset({"half"}),
    "set_light": frozenset({"signal", "arrow_signal"}),
    "domino": frozenset({"domino"}),
    "remove_support": None,
    "topple": None,
}


@pytest.fixture(scope="module")
def items(property_seeds: range) -> list[Item]:
    """What seeds draw, and every edit."""
    return [sample_item(seed) for seed in property_seeds] + [
        sample_item(seed, family=family, edit=edit)
        for family, edit in EDITS
        for seed in range(max(2, len(property_seeds) // 50))
    ]


def standing(**changes: object) -> Body:
    values = {"id": 2, "kind": "cube", "colour": "red", "albedo": COLOURS["red"], "x": 60.0, "y": 90.0, "size": 10.0}
    return Body(**{**values, **changes})


def room(*bodies: Body, arm: Arm | None = None) -> State:
    backdrop = Backdrop(
        wall=(226, 222, 212), floor=(158, 132, 106), floor_y=100.0, light=0.0, decoration="none", decoration_x=64.0
    )
    return State(backdrop=backdrop, bodies=bodies, arm=arm)


def test_same_seed_same_bytes(items: list[Item]) -> None:
    for item in items:
        again = sample_item(item.seed, family=item.family, edit=item.edit)
        assert json.dumps(again.to_json()) == json.dumps(item.to_json())
        assert again.input.tobytes() == item.input.tobytes()
        assert again.target.tobytes() == item.target.tobytes()


def test_what_a_seed_means_stays_as_the_embedded_model_learned_it() -> None:
    families = [family for family in SCENES if family not in SIMULATED]
    drawn = json.dumps([sample_item(seed, family=family).to_json() for family in families for seed in range(10)])
    rounded = json.loads(drawn, parse_float=lambda text: round(float(text), 3))
    digest = hashlib.sha256(json.dumps(rounded, sort_keys=True).encode()).hexdigest()
    assert digest == "ccdcfcf704d2886d7b6f38b0b8f9735b10bcfeb8a2c044236ee6625825478069"
    spoken = [sample_item(seed).prompt for seed in (*range(40), *range(100_000, 100_040))]
    assert (
        hashlib.sha256("\n".join(spoken).encode()).hexdigest()
        == "bf76c3a17f482b051185d7252106ea875b16917a08f989081708fbbc7d186ec2"
    )


def test_frames_run_from_input_to_target(items: list[Item]) -> None:
    for item in items:
        assert np.array_equal(item.frame(0), item.input)
        assert np.array_equal(item.frame(FRAMES - 1), item.target)
    frames = items[0].frames()
    assert frames.shape == (FRAMES, WORLD_SIZE, WORLD_SIZE, 3) and frames.dtype == np.uint8
    assert np.array_equal(frames[0], items[0].input) and np.array_equal(frames[-1], items[0].target)


def test_every_body_has_an_id_of_its_own(items: list[Item]) -> None:
    for item in items:
        for state in (item.start, item.end):
            assert len({body.id for body in state.bodies}) == len(state.bodies)


def said_of(item: Item) -> set[int]:
    """The bodies of the start that the instruction singles out; of words within others the longer ones count."""
    ways = {way.text: body.id for body in item.start.bodies for way in references(item.start, body, at_end=True)}
    found = [text for text in ways if re.search(rf"\b(?:the|that) {re.escape(text)}\b", item.prompt, re.IGNORECASE)]
    return {ways[text] for text in found if not any(text != other and text in other for other in found)}


def meant_in(item: Item) -> set[int]:
    """The bodies of the start that the scene's own words are about, and those beside which they are said to be."""
    names = {re.sub(r"^.*\bthe ", "", slot) for slot in item.words.slots.values()}
    names |= set(re.findall(r"to the (?:left|right) of the ([\w -]+)", item.prompt))
    return {body.id for name in names if (body := meant_by(name, item.start)) is not None}


def test_instructions_name_their_subject_and_nobody_else(items: list[Item]) -> None:
    for item in items:
        said, meant = said_of(item), meant_in(item)
        assert said <= meant | {item.subject} or not meant, (item.seed, item.prompt)
        if item.family in CALLED_BY_NAME and item.subject is not None and item.start.body(item.subject) is not None:
            assert item.subject in said, (item.seed, item.prompt)
        assert not re.search(r"[{}]|\b[Aa] [aeiou]", item.prompt)


def test_the_subject_changes_and_nothing_else_does(items: list[Item]) -> None:
    for item in items:
        assert item.edit_mask.any() == (item.subject is not None)
        assert (item.start.backdrop == item.end.backdrop) == (item.edit != "change_background")
        if item.subject is None:
            assert item.start == item.end and np.array_equal(item.input, item.target)
            continue
        before, after = item.input_ids == item.subject, item.target_ids == item.subject
        assert item.edit_mask[before | after].any()
        assert (before != after).any() or item.edit in IN_PLACE
        bodies = {body.id: body for state in (item.start, item.end) for body in state.others(item.subject)}
        changed = {body.kind for key, body in bodies.items() if item.start.body(key) != item.end.body(key)}
        may_change = ALSO_CHANGES.get(item.edit, frozenset())
        assert may_change is None or changed <= may_change, (item.seed, item.edit, changed)


def test_bodies_never_overlap_by_more_than_a_pixel(items: list[Item]) -> None:
    """Solid ones that are equally near do not, and none sinks into its ground."""
    for item in items:
        for state in (item.scene.state(k / (FRAMES - 1)) for k in range(0, FRAMES, 4)):
            solid = [body for body in state.bodies if body.look.solid]
            grounds = {body.id: body.ground_y(state.backdrop) for body in solid}
            for a, b in itertools.combinations(solid, 2):
                if (a.layer, grounds[a.id]) == (b.layer, grounds[b.id]):
                    assert gap_px(a, b) > -1, (item.seed, item.edit, a.name, b.name)
            for body in solid:
                assert body.span[3] < grounds[body.id] + 1, (item.seed, item.edit, body.name)


def test_nothing_floats_at_the_end(items: list[Item]) -> None:
    for item in (each for each in items if each.edit not in HARD_EDITS):  # in those gravity does not pull down
        for body in (body for body in item.end.bodies if body.look.solid):
            held = body.id in item.end.ropes or (item.end.arm is not None and gripped(item.end, body) < 0.1)
            stands = abs(body.ground_y(item.end.backdrop) - body.span[3]) < 1
            assert held or stands or abs(resting_gap_px(body, item.end)) < 1, (item.seed, item.edit, body.name)


def test_targets_pass_the_checks_of_their_scene(items: list[Item]) -> None:
    for item in items:
        assert overlap_radii(item.end) < 0.1
        for name in item.scene.checks:
            subject = item.end.body(item.subject) if item.subject is not None else None
            assert subject is not None and CHECKS[name](item.end, subject) < 0.1, (item.seed, name)


def test_energy_never_grows_after_release(property_seeds: range) -> None:
    dt = DURATION_S / (FRAMES - 1)
    for seed in range(len(property_seeds) // 5):
        item = sample_item(seed, family="falling")
        states = [item.scene.state(k / (FRAMES - 1)) for k in range(FRAMES)]
        path = np.array([(b.x, b.y) for s in states if (b := s.body(item.subject or 0)) is not None])
        speed = np.linalg.norm(np.diff(path, axis=0), axis=1) / dt
        height = item.start.backdrop.floor_y - (path[1:, 1] + path[:-1, 1]) / 2
        energy = GRAVITY_PX_S2 * height + speed**2 / 2
        # a frame in which it bounces shows a mean speed that is too low: compare with the two before
        for k in range(2, len(energy)):
            assert energy[k] <= 1.02 * energy[k - 2 : k].max() + 1, (seed, k)
        assert energy[-1] < energy[0]


@pytest.mark.parametrize(("family", "edit"), EDITS)
def test_every_edit_can_be_asked_for(family: str, edit: str) -> None:
    item = sample_item(3, family=family, edit=edit)
    assert (item.family, item.edit) == (family, edit)
    assert item.to_json()["prompt"] == item.prompt


@pytest.mark.parametrize("edit", [edit for _, edit in EDITS])
def test_a_dozen_phrasings_each(edit: str) -> None:
    phrases = PHRASES[edit]
    assert len(set(phrases)) == len(phrases) >= 12
    slots = [{name for _, name, _, _ in string.Formatter().parse(phrase) if name} for phrase in phrases]
    assert all(slot == slots[0] for slot in slots)


def test_an_before_a_vowel() -> None:
    rng = np.random.default_rng(0)
    said = {say(rng, "add", {"a": "orange cup", "place": "on the left"}) for _ in range(60)}
    assert all(" a orange" not in phrase for phrase in said) and any("an orange cup" in phrase for phrase in said)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "negative"),
        ({"seed": 0, "size": 100}, "multiple of 16"),
        ({"seed": 0, "family": "garage"}, "table, falling, any"),
        ({"seed": 0, "family": "table", "edit": "release"}, "pick_up, place, push"),
    ],
)
def test_refusals_name_the_remedy(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_item(**arguments)


def test_another_size_is_the_same_world_drawn_larger() -> None:
    small, large = (sample_item(FIRST_EVALUATION_SEED, size=size) for size in (128, 256))
    assert large.start == small.start and large.target.shape == (256, 256, 3)
    assert np.abs(large.input[::2, ::2].astype(int) - small.input).mean() < 4


def test_ids_are_where_the_picture_shows_the_things() -> None:
    body = standing()
    state = room(body, arm=Arm(x=30.0, y=20.0, opening=10.0))
    ids, picture = id_mask(state), render(state)
    assert set(np.unique(ids)) == {0, ARM_ID, body.id}
    inner = ids == body.id
    assert abs(np.count_nonzero(inner) - 400) < 45
    assert np.abs(picture[90, 60].astype(int) - COLOURS["red"]).max() <= 5 and ids[90, 60] == body.id
    assert ids[0, 30] == ARM_ID and ids[100:].max() == 0


def test_a_half_transparent_body_mixes_and_a_faint_one_has_no_id() -> None:
    half = render(room(standing(alpha=0.5)))[90, 60].astype(int)
    empty = render(room())[90, 60].astype(int)
    assert np.abs(half - (empty + np.array(COLOURS["red"])) / 2).max() <= 2
    assert not (id_mask(room(standing(alpha=0.4))) == 2).any()


def test_ease_starts_and_ends_at_rest() -> None:
    assert ease(0) == 0 and ease(1) == 1 and ease(0.5) == 0.5
    assert ease(0.001) < 1e-6 and 1 - ease(0.999) < 1e-6
    assert ease(-1) == 0 and ease(2) == 1


def test_free_fall_is_that_of_gravity() -> None:
    body = standing(y=20.0)
    states = simulate(room(body), (2,), frames=5, duration_s=0.4)
    fallen = [state.bodies[0].y - 20.0 for state in states]
    expected = [GRAVITY_PX_S2 * (0.1 * k) ** 2 / 2 for k in range(5)]
    assert np.allclose(fallen, expected, atol=0.2)


def test_gap_between_outlines() -> None:
    assert gap_px(standing(), standing(id=3, x=85.0)) == pytest.approx(5.0)
    assert gap_px(standing(), standing(id=3, x=75.0)) == pytest.approx(-5.0)


def test_checks_measure_in_radii() -> None:
    body = standing()
    holding = Arm(x=60.0, y=90.0 + 6.0 - 20.0, opening=10.0)
    assert supported(room(body), body) == 0
    lifted = standing(y=85.0)
    assert supported(room(lifted), lifted) == pytest.approx(0.5)
    assert gripped(room(body, arm=holding), body) == 0
    assert gripped(room(body, arm=Arm(x=70.0, y=76.0, opening=10.0)), body) == pytest.approx(1.0)
    assert gripped(room(body), body) == np.inf and touched(room(body), body) == np.inf
    beside = Arm(x=60.0 - 10.0 - 6.0, y=76.0, opening=3.0)
    assert touched(room(body, arm=beside), body) == 0
    assert touched(room(body, arm=Arm(x=39.0, y=76.0, opening=3.0)), body) == pytest.approx(0.5)
    assert touched(room(body, arm=Arm(x=44.0, y=20.0, opening=3.0)), body) == pytest.approx(5.0)


def test_overlap_is_measured_between_bodies_and_with_the_floor() -> None:
    assert overlap_radii(room(standing())) == 0
    assert overlap_radii(room(standing(), standing(id=3, x=75.0))) == pytest.approx(0.5)
    assert overlap_radii(room(standing(y=95.0))) == pytest.approx(0.5)
    assert overlap_radii(room()) == 0
