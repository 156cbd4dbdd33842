"""The robot arm and its tools: it touches what it holds, passes through nothing, and slides hollow things on shafts."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from chronoedit.world import FRAMES, Item, sample_item
from chronoedit.world.checks import CHECKS, overlap_radii
from chronoedit.world.geometry import box
from chronoedit.world.kinds import shafts
from chronoedit.world.language import PHRASES
from chronoedit.world.physics import gap_px
from chronoedit.world.scenes.tools import Tools
from chronoedit.world.state import FINGER_LENGTH, FINGER_WIDTH, WORLD_SIZE, Arm, Body, State

EVERY = tuple(k / (FRAMES - 1) for k in range(FRAMES))


@pytest.fixture(scope="module")
def items(property_seeds: range) -> list[Item]:
    edits = itertools.cycle(Tools.edits)
    return [sample_item(seed, family="tools", edit=next(edits)) for seed in property_seeds]


def subject(item: Item, state: State) -> Body:
    body = state.body(item.subject or 0)
    assert body is not None
    return body


def fingers(arm: Arm) -> list[Body]:
    """The two fingers as bodies, so that gaps to them can be measured."""
    lefts = (arm.x - arm.opening - FINGER_WIDTH, arm.x + arm.opening)
    outlines = [box(left, arm.y, left + FINGER_WIDTH, arm.y + FINGER_LENGTH) for left in lefts]
    look = {"kind": "piece", "colour": "", "albedo": (0, 0, 0)}
    return [Body(id=0, x=0.0, y=0.0, size=1.0, points=tuple(outline), **look) for outline in outlines]


def width_at(body: Body, y: float) -> float:
    """Half the width of an outline at the height y."""
    outline, xs = body.outline(), []
    for (ax, ay), (bx, by) in zip(outline, [*outline[1:], *outline[:1]], strict=True):
        if min(ay, by) <= y <= max(ay, by) and ay != by:
            xs.append(ax + (bx - ax) * (y - ay) / (by - ay))
    return max(xs) - (min(xs) + max(xs)) / 2 if xs else 0.0


def test_same_seed_same_bytes(items: list[Item]) -> None:
    for item in items:
        again = sample_item(item.seed, family="tools", edit=item.edit)
        assert json.dumps(again.to_json()) == json.dumps(item.to_json())
        assert again.target.tobytes() == item.target.tobytes()


def test_published_words_are_among_what_can_be_said() -> None:
    tools = {sample_item(seed, family="tools", edit="install").prompt for seed in range(60)}
    assert any("cylindrical tool" in prompt and "shaft" in prompt for prompt in tools)
    assert "pick up the {a} with the robot arm" in PHRASES["pick_up_tool"]
    assert "install the {a} on the {b}" in PHRASES["install"]


def test_nothing_but_the_subject_and_the_arm_moves(items: list[Item]) -> None:
    for item in items:
        for t in EVERY[::4]:
            state = item.state(t)
            assert state.backdrop == item.start.backdrop
            assert list(state.others(item.subject or 0)) == list(item.start.others(item.subject or 0))


def test_motion_is_smooth_and_stays_in_the_picture(items: list[Item]) -> None:
    for item in items:
        states = [item.scene.state(t) for t in EVERY]
        arms = [(s.arm.x, s.arm.y, s.arm.opening) for s in states if s.arm is not None]
        bodies = [(b.x, b.y) for b in (subject(item, s) for s in states)]
        for path in (arms, bodies):
            steps = np.linalg.norm(np.diff(np.array(path), axis=0), axis=1)
            assert steps.max() < 28, (item.seed, item.edit)
        for arm in arms:
            assert 0 < arm[0] < WORLD_SIZE and arm[1] > 5
        left, top, right, _ = subject(item, item.end).span
        assert min(left, top, WORLD_SIZE - right) > 0


def test_what_is_carried_is_between_the_fingers(items: list[Item]) -> None:
    for item in items:
        assert isinstance(item.scene, Tools)
        stops = item.scene.grasp.stops
        for t in (t for t in EVERY if stops[0][0] <= t <= stops[-1][0]):
            state = item.scene.state(t)
            body = subject(item, state)
            assert state.arm is not None and CHECKS["gripped"](state, body) < 1e-6
            held = [width_at(body, state.arm.y + FINGER_LENGTH - d) for d in np.arange(0.1, 18)]
            assert abs(max(held) - state.arm.opening) < 0.8, (item.seed, body.kind)


def test_neither_the_arm_nor_what_it_carries_passes_through_others(items: list[Item]) -> None:
    for item in items:
        for t in EVERY:
            state = item.scene.state(t)
            assert state.arm is not None
            body = subject(item, state)
            host = round(body.detail("host", -1.0))
            for other in state.others(body.id):
                in_stand = other.kind == "stand" or not other.look.solid
                if other.id != host and not in_stand:
                    assert gap_px(body, other) > -1, (item.seed, t, other.name)
                if other.id != host and other.kind != "stand":
                    assert all(gap_px(finger, other) > -1 for finger in fingers(state.arm)), (item.seed, t, other.name)


def test_ends_are_what_was_asked_for(items: list[Item]) -> None:
    for item in items:
        body = subject(item, item.end)
        assert overlap_radii(item.end) < 0.1
        for name in item.scene.checks:
            assert CHECKS[name](item.end, body) < 0.05, (item.seed, name)
        lifted = subject(item, item.start).y - body.y
        assert lifted > 20 if item.edit == "pick_up_tool" else body.y < item.end.backdrop.floor_y


def test_a_hollow_tool_ends_on_its_shaft_and_never_cuts_into_it(items: list[Item]) -> None:
    for item in (each for each in items if each.edit == "install"):
        tool = subject(item, item.end)
        host = item.end.body(round(tool.detail("host", -1.0)))
        assert host is not None
        upright = host.kind == "shaft"
        if upright:
            foot = host.y + shafts.SHAFT_BASE * host.size
            assert tool.x == pytest.approx(host.x, abs=0.01) and tool.span[3] == pytest.approx(foot, abs=0.01)
            play = shafts.HOLE_HALF * tool.size - shafts.SHAFT_HALF * host.size
        else:
            axes = tool.y + shafts.CHUCK_AXIS * tool.size, host.y + shafts.MOTOR_AXIS * host.size
            assert axes[0] == pytest.approx(axes[1], abs=0.01)
            play = shafts.CHUCK_HOLE * tool.size - shafts.MOTOR_SHAFT * host.size
        assert 0.3 < play < 2.5
        for t in EVERY:
            at, tip = subject(item, item.scene.state(t)), host.y + shafts.SHAFT_TOP * host.size
            if upright:
                around = at.span[3] > tip and at.span[0] < host.x < at.span[2]
                assert not around or abs(at.x - host.x) <= play
            else:
                end = host.x + host.detail("flip", 1.0) * shafts.MOTOR_TIP * host.size
                off = at.y + shafts.CHUCK_AXIS * at.size - axes[1]
                around = at.span[0] < end < at.span[2] and abs(off) < shafts.CHUCK_RADIUS * at.size
                assert not around or abs(off) <= play
