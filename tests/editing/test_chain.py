from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from chronoedit.editing.chain import RECORD_FILE, ChainStep, run_chain
from chronoedit.editing.editor import Editor
from chronoedit.editing.prepare import pixels_sha256
from chronoedit.errors import EditCancelled, OutputError
from chronoedit.media import load_image, read_metadata, read_video
from chronoedit.request import EditRequest, EditResult

from .conftest import make_photo, make_request

PROMPTS = ("open the jar", "add a hat", "remove the red ball")


def chain_of(prompts: tuple[str, ...] = PROMPTS, **changes: object) -> list[EditRequest]:
    fields = {"num_inference_steps": 1, "guidance_scale": 1.0, "return_latents": False, **changes}
    return [make_request(prompt=prompt, **fields) for prompt in prompts]


class CountingEditor(Editor):
    """Counts its edits, and can be stopped at one."""

    prompts: list[str]
    stop_at: int | None = None

    def edit(self, request: EditRequest, **noise: object) -> EditResult:
        if len(self.prompts) == self.stop_at:
            raise EditCancelled("stopped by the test")
        self.prompts.append(request.prompt)
        return super().edit(request)


@pytest.fixture
def counting(editor: Editor) -> CountingEditor:
    made = CountingEditor(editor.components, device="cpu")
    made.prompts = []
    return made


def pixels(steps: list[ChainStep]) -> list[str]:
    return [pixels_sha256(load_image(step.path)) for step in steps]


def test_each_step_starts_from_the_last_result(counting: CountingEditor, tmp_path: Path) -> None:
    heard: list[ChainStep] = []
    steps = run_chain(counting, chain_of(), tmp_path, on_step=heard.append)
    assert [step.path.name for step in steps] == ["step-01.png", "step-02.png", "step-03.png"]
    assert [step.index for step in steps] == [0, 1, 2] and heard == steps
    image: object = make_photo()
    for step, prompt in zip(steps, PROMPTS, strict=True):
        expected = counting.edit(chain_of((prompt,), image=image)[0]).image
        assert pixels_sha256(load_image(step.path)) == pixels_sha256(expected)
        image = expected
    metadata = read_metadata(steps[1].path)
    assert metadata is not None
    assert metadata["request"]["prompt"] == PROMPTS[1] and metadata["request"]["image"] == str(steps[0].path)
    assert metadata["hashes"]["model"] == counting.components.model_hash


def test_a_stopped_chain_goes_on_after_its_last_whole_step(counting: CountingEditor, tmp_path: Path) -> None:
    whole = run_chain(counting, chain_of(), tmp_path / "whole")
    counting.prompts, counting.stop_at = [], 2
    with pytest.raises(EditCancelled):
        run_chain(counting, chain_of(), tmp_path / "stopped")
    counting.prompts, counting.stop_at = [], None
    resumed = run_chain(counting, chain_of(), tmp_path / "stopped")
    assert counting.prompts == [PROMPTS[2]]
    assert [step.result is None for step in resumed] == [True, True, False]
    assert pixels(resumed) == pixels(whole)
    assert resumed[0].request.num_inference_steps == 1 and resumed[0].request.prompt == PROMPTS[0]


def test_a_finished_chain_is_not_run_again_and_keeps_its_drawn_seeds(counting: CountingEditor, tmp_path: Path) -> None:
    first = run_chain(counting, chain_of(seed=None), tmp_path)
    counting.prompts = []
    again = run_chain(counting, chain_of(seed=None), tmp_path)
    assert counting.prompts == []
    assert [step.request.seed for step in again] == [step.request.seed for step in first]


def change_prompt(folder: Path, requests: list[EditRequest]) -> list[EditRequest]:
    return [requests[0], *chain_of(("add sunglasses",)), requests[2]]


def change_picture(folder: Path, requests: list[EditRequest]) -> list[EditRequest]:
    make_photo(9).save(folder / "step-02.png")
    return requests


def lose_picture(folder: Path, requests: list[EditRequest]) -> list[EditRequest]:
    (folder / "step-02.png").unlink()
    return requests


def cut_picture(folder: Path, requests: list[EditRequest]) -> list[EditRequest]:
    path = folder / "step-02.png"
    path.write_bytes(path.read_bytes()[:200])
    return requests


def forget_step(folder: Path, requests: list[EditRequest]) -> list[EditRequest]:
    record = folder / RECORD_FILE
    lines = record.read_text().splitlines(keepends=True)
    record.write_text(lines[0] + lines[1][:30])
    return requests


@pytest.mark.parametrize(
    ("change", "run_again"),
    [
        (change_prompt, ["add sunglasses", PROMPTS[2]]),
        (change_picture, [PROMPTS[1]]),
        (lose_picture, [PROMPTS[1]]),
        (cut_picture, [PROMPTS[1]]),
        (forget_step, [PROMPTS[1], PROMPTS[2]]),
    ],
)
def test_a_changed_step_is_done_anew_with_those_that_depend_on_it(
    counting: CountingEditor, tmp_path: Path, change: object, run_again: list[str]
) -> None:
    """Where the second step comes out as before, the third, which started from those pixels, still stands."""
    before = pixels(run_chain(counting, chain_of(), tmp_path))
    requests = change(tmp_path, chain_of())  # type: ignore[operator]
    counting.prompts = []
    after = pixels(run_chain(counting, requests, tmp_path))
    assert counting.prompts == run_again
    assert (after == before) == (change is not change_prompt)


def test_another_input_or_model_is_another_chain(
    counting: CountingEditor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_chain(counting, chain_of(PROMPTS[:1]), tmp_path)
    counting.prompts = []
    run_chain(counting, chain_of(PROMPTS[:1], image=make_photo(4)), tmp_path)
    assert counting.prompts == list(PROMPTS[:1])
    monkeypatch.setattr(counting.components, "_hash", "another model")
    run_chain(counting, chain_of(PROMPTS[:1], image=make_photo(4)), tmp_path)
    assert counting.prompts == list(PROMPTS[:1]) * 2


def test_a_step_with_its_trajectory_is_saved_as_video_too(counting: CountingEditor, tmp_path: Path) -> None:
    steps = run_chain(counting, chain_of(PROMPTS[:1], reasoning=True, return_trajectory=True), tmp_path)
    frames = read_video(steps[0].path.with_suffix(".mp4"))
    assert frames.shape == (26, 64, 64, 3)
    result = steps[0].result
    assert result is not None and result.trajectory is not None
    brightness = [video.mean(axis=3).ravel() for video in (frames, result.trajectory)]  # the codec halves colour
    assert np.corrcoef(*brightness)[0, 1] > 0.9


def test_own_metadata(counting: CountingEditor, tmp_path: Path) -> None:
    steps = run_chain(counting, chain_of(PROMPTS[:1]), tmp_path, describe=lambda r: {"seed": r.request.seed})
    assert read_metadata(steps[0].path) == {"seed": 7}


def test_record_holds_one_line_a_step(counting: CountingEditor, tmp_path: Path) -> None:
    run_chain(counting, chain_of(), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / RECORD_FILE).read_text().splitlines()]
    assert [line["key"] for line in lines] == ["step-01", "step-02", "step-03"]
    assert all(line["request"]["seed"] == 7 and "total" in line["timings_s"] for line in lines)


def test_what_is_no_chain_is_refused(counting: CountingEditor, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one edit"):
        run_chain(counting, [], tmp_path)
    with pytest.raises(ValueError, match="step 2 asks for 2 variants"):
        run_chain(counting, [make_request(), make_request(num_variants=2)], tmp_path)
    assert counting.prompts == [] and list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_error(counting: CountingEditor, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match="taken"):
        run_chain(counting, chain_of(), tmp_path / "taken")
    assert counting.prompts == []
