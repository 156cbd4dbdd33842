"""Which spans become clips: cuts, pans, moving squares, blur, fades; and how a span that is rejected moves on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from chronoedit.data.footage import Sample, open_footage, samples
from chronoedit.data.spans import CLIP_LENGTH, HOP, REASONS, Limits, Seen, Span, Verdict, judge, signature, spans

from .scenery import as_samples, film, real_video


def dimmed(frames: np.ndarray, to: float) -> np.ndarray:
    return (frames * np.linspace(1, to, len(frames))[:, None, None, None]).astype(np.uint8)


def plain() -> np.ndarray:
    frames = np.full((CLIP_LENGTH, 136, 240, 3), 120, np.uint8)
    for k, frame in enumerate(frames):
        frame[50:80, 30 + 2 * k : 60 + 2 * k] = 200
    return frames


FILMS = {
    "a square moves": (film(29), None),
    "a small square moves": (film(29, side_px=12), None),
    "a large square moves": (film(29, side_px=80, moves_px=90), None),
    "a square moves before soft grass": (film(29, blur_px=1), None),
    "nothing moves": (film(29, moves_px=0), "alike"),
    "a pan": (film(29, pan_px=60), "camera"),
    "a slow pan": (film(29, pan_px=2), "camera"),
    "out of focus": (film(29, blur_px=4), "blurred"),
    "fade to black": (dimmed(film(29), 0), "fade"),
    "half a fade": (dimmed(film(29), 0.5), "fade"),
    "a cloud": (dimmed(film(29), 0.85), "light"),
    "a plain wall": (plain(), "plain"),
}


@pytest.mark.parametrize("name", FILMS)
def test_known_films(name: str) -> None:
    frames, reason = FILMS[name]
    assert judge(as_samples(frames), Limits()).reason == reason


def test_limits_are_kept() -> None:
    window = as_samples(film(29))
    change, blur = (judge(window, Limits()).measures[name] for name in ("change", "blur"))
    assert judge(window, Limits(min_change=change + 0.01)).reason == "alike"
    assert judge(window, Limits(max_change=change - 0.01)).reason == "busy"
    assert judge(window, Limits(max_blur=blur - 0.01)).reason == "blurred"


def test_who_only_passes_by_is_seen() -> None:
    there = film(15, side_px=60, moves_px=120)
    window = as_samples(np.concatenate([there, there[-2::-1]]))
    verdict = judge(window, Limits(max_change=0.15))
    assert verdict.reason == "alike" and verdict.measures["max_change"] > 0.2 > verdict.measures["change"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_change": 0.5}, "from 0.5 to 0.5 of the picture"),
        ({"max_change": 1.5}, "shares from 0 to 1"),
        ({"max_blur": 0}, "max_blur 0 is not above 0"),
    ],
)
def test_limits_that_make_no_sense(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Limits(**values)


def looked_at(found: Sequence[Span]) -> list[tuple[int, int, str | None, int]]:
    return [(span.samples[0].index, len(span.samples), span.verdict.reason, span.next_index) for span in found]


def by(reason: str | None):
    return lambda window: Verdict(reason, {})


def test_shots_end_at_cuts_and_clips_lie_within_them() -> None:
    film_of_three = np.concatenate([film(40, 0), film(33, 1), film(20, 2)])
    assert looked_at(list(spans(as_samples(film_of_three), by(None)))) == [
        (0, 29, None, 28),
        (28, 12, "short", 40),
        (40, 29, None, 68),
        (68, 5, "short", 73),
        (73, 20, "short", 93),
    ]


def test_a_cut_right_after_a_clip_is_found() -> None:
    assert looked_at(list(spans(as_samples(np.concatenate([film(29, 0), film(29, 1)])), by(None)))) == [
        (0, 29, None, 28),
        (28, 1, "short", 29),
        (29, 29, None, 57),
    ]


def test_pans_and_large_things_that_move_are_no_cuts() -> None:
    for frames in (film(60, pan_px=100), film(60, side_px=90, moves_px=140)):
        assert all(len(span.samples) == 29 for span in list(spans(as_samples(frames), by("camera")))[:-1])


def test_what_is_rejected_moves_on_by_a_quarter() -> None:
    found = looked_at(list(spans(as_samples(film(50)), by("camera"))))
    assert found == [(k * HOP, 29, "camera", (k + 1) * HOP) for k in range(4)] + [(28, 22, "short", 50)]


@pytest.mark.parametrize("reason", ["duplicate", "enough"])
def test_what_was_had_before_is_passed_over_whole(reason: str) -> None:
    assert looked_at(list(spans(as_samples(film(40)), by(reason))))[0] == (0, 29, reason, 28)


def test_missing_frames_end_a_shot() -> None:
    window = as_samples(film(40))
    window[10] = replace(window[10], gap=True)
    assert looked_at(list(spans(window, by(None))))[:2] == [(0, 10, "gap", 10), (10, 29, None, 38)]


def test_what_follows_depends_on_the_samples_from_there_alone() -> None:
    frames = np.concatenate([film(45, 0), film(40, 1, pan_px=50), film(45, 2)])
    limits = Limits()
    whole = list(spans(as_samples(frames), lambda window: judge(window, limits)))
    for done, span in enumerate(whole, 1):
        rest = as_samples(frames[span.next_index :], span.next_index)
        assert looked_at(list(spans(rest, lambda window: judge(window, limits)))) == looked_at(whole[done:])


def test_no_more_than_a_span_is_held() -> None:
    alive, most = 0, 0

    class Counted(np.ndarray):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def stream():
        nonlocal alive, most
        for sample in as_samples(film(30)) * 8:
            alive += 1
            most = max(most, alive)
            yield Sample(sample.index, sample.time_s, sample.pixels.copy().view(Counted), sample.small)

    assert len(list(map(len, (span.samples for span in spans(stream(), by("camera")))))) > 20
    assert most <= 2 * CLIP_LENGTH


def test_a_clip_seen_again_is_known_and_another_movement_is_not() -> None:
    seen = Seen()
    window = as_samples(film(29, 0))
    for seed in range(100):  # more than it holds at first
        seen.add(f"other {seed}", np.random.default_rng(seed).integers(0, 256, (4, 8), dtype=np.uint8))
    seen.add("first", signature(window))
    again = film(29, 0).astype(np.int16) + np.random.default_rng(9).integers(-9, 10, (29, 136, 240, 3))
    noisy = signature(as_samples(again.clip(0, 255).astype(np.uint8)))
    assert seen.near(noisy, but="") == "first" and seen.near(noisy, but="first") is None
    there_and_back = signature(as_samples(film(29, 0)[::-1]))
    assert seen.near(there_and_back, but="") is None
    assert seen.near(signature(as_samples(film(29, 5))), but="") is None


def test_every_reason_is_explained() -> None:
    assert {reason for _, reason in FILMS.values() if reason} < set(REASONS)


def real_spans(name: str, seconds: float) -> list[Span]:
    footage = open_footage(real_video(name))
    stride = round(seconds * footage.frames_per_s / (CLIP_LENGTH - 1))
    limits = Limits()
    return list(spans(samples(footage, stride / footage.frames_per_s, 720), lambda window: judge(window, limits)))


def test_cuts_of_a_real_trailer() -> None:
    """The frames where the shots of bikes.mp4 begin were found by eye; the camera drifts in every one of them."""
    found = real_spans("bikes.mp4", 1.12)
    assert [span.next_index for span in found if span.verdict.reason == "short"] == [30, 76, 137, 187, 242, 250]
    assert {span.verdict.reason for span in found} == {"short", "camera"}


def test_a_real_camera_that_comes_to_rest() -> None:
    """In bigbuckbunny.mp4 the camera moves in and comes to rest after three seconds; then the rabbit turns."""
    clips = [span for span in real_spans("bigbuckbunny.mp4", 1.12) if span.verdict.reason is None]
    assert len(clips) == 1 and 2.8 < clips[0].samples[0].time_s < 4


def test_a_real_clip_of_lower_quality_is_the_same_clip() -> None:
    seen = Seen()
    for name in ("carphone_pristine.mp4", "carphone_distorted.mp4"):
        footage = open_footage(real_video(name))
        whole = list(samples(footage, 1 / footage.frames_per_s, 720))
        marks = {start: signature(whole[start : start + 29]) for start in (0, 28, 56, 84)}
        if name == "carphone_pristine.mp4":
            for start, mark in marks.items():
                assert seen.near(mark, but="") is None
                seen.add(str(start), mark)
        else:
            assert [seen.near(mark, but="") for mark in marks.values()] == ["0", "28", "56", "84"]
