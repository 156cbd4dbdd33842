"""Batch jobs: groups, what is resumed and what is refused, failures that cost one edit, and looking ahead."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from chronoedit.data.manifest import BatchItem
from chronoedit.editing.batch_editor import BatchEditor, SentBatch, edit_here, packed, read_photos, worker
from chronoedit.editing.batch_job import Batch, BatchJob, sensible_batch_size, sort_out
from chronoedit.editing.editor import Editor
from chronoedit.editing.encode import InputEncoder
from chronoedit.errors import ChronoEditError, EditCancelled, OutputError
from chronoedit.ledger import Ledger
from chronoedit.media import image_sha256, load_image, read_metadata, read_video
from chronoedit.model.checkpoint import Components, open_checkpoint
from chronoedit.model.settings import ModelSettings
from chronoedit.request import EditRequest, EditResult, Progress

from .conftest import SIDE_PX, Calls, make_photo

PUBLISHED = ModelSettings(name="published")


def describe(result: EditResult) -> dict[str, Any]:
    return {"request": result.request.to_json(), "hashes": result.hashes}


@pytest.fixture
def items(tmp_path: Path) -> tuple[BatchItem, ...]:
    """Six edits of three pictures, the fourth of another size."""
    for k in range(3):
        make_photo(k).save(tmp_path / f"photo{k}.png")
    return tuple(
        BatchItem(
            name=f"photo{k % 3}-{k}",
            place=f"row {k + 1}",
            photo_size=(SIDE_PX, SIDE_PX),
            request=EditRequest(
                image=str(tmp_path / f"photo{k % 3}.png"),
                prompt=f"add {k} hats",
                seed=k,
                num_inference_steps=2,
                height=48 if k == 3 else None,
                width=64 if k == 3 else None,
            ),
        )
        for k in range(6)
    )


@pytest.fixture
def job(tmp_path: Path, items: tuple[BatchItem, ...]) -> BatchJob:
    return BatchJob(folder=tmp_path / "out", items=items, made_with={"model": "random"}, batch_size=2)


def run(job: BatchJob, editor: Editor, *, video: bool = False, **options: Any) -> list[dict[str, Any]]:
    """Do what is left; gives the records of what was done now."""
    ledger, done = job.open(), []
    batch_editor = BatchEditor(editor, describe, video=video)
    batches = job.batches(ledger, editor.components.settings)
    job.run(ledger, batches, lambda given: edit_here(batch_editor, given, **options), done.append)
    return done


def pixels(folder: Path) -> dict[str, bytes]:
    return {path.stem: np.asarray(load_image(path)).tobytes() for path in folder.glob("*.png")}


def lines(folder: Path) -> list[str]:
    return [json.loads(line)["key"] for line in (folder / "results.jsonl").read_text().splitlines()]


def test_groups_follow_size_and_settings_in_the_order_of_the_rows(job: BatchJob, editor: Editor) -> None:
    batches = job.batches(job.open(), editor.components.settings)
    assert [[item.request.seed for item in batch.items] for batch in batches] == [[0, 1], [2, 4], [5], [3]]
    assert [batch.group for batch in batches] == [0, 0, 0, 1]
    other = replace(job.items[0], name="x", request=replace(job.items[0].request, guidance_scale=2.0))
    half = replace(job.items[0], name="y", request=replace(job.items[0].request, guidance_until=0.5))
    twelve = replace(job.items[0].request, step_cache="first-block", num_inference_steps=12)
    cached = replace(job.items[0], name="z", request=twelve)
    also = replace(cached, name="w", request=replace(twelve, step_cache="first-block:0.10"))
    more = replace(job, items=(*job.items, other, half, cached, also), batch_size=9)
    sizes = [len(batch.items) for batch in more.batches(job.open(), editor.components.settings)]
    assert sizes == [5, 1, 1, 1, 2]


@pytest.mark.parametrize(
    ("settings", "changes", "expected"),
    [
        (PUBLISHED, {}, 1),  # 2 x 3600 tokens
        (PUBLISHED, {"height": 256, "width": 256}, 4),  # 2 x 256
        (PUBLISHED, {"height": 64, "width": 64}, 16),  # 2 x 16: as many as go at most
        (PUBLISHED, {"height": 128, "width": 128, "reasoning": True}, 4),  # 8 x 64
    ],
)
def test_how_many_go_together_follows_from_the_tokens(
    settings: ModelSettings, changes: dict[str, Any], expected: int
) -> None:
    request = EditRequest(image="a.png", prompt="go", **changes)
    item = BatchItem(name="a-1", place="row 1", request=request, photo_size=(640, 480))
    assert sensible_batch_size(item, settings) == expected


def test_what_the_model_cannot_do_is_sorted_out(items: tuple[BatchItem, ...]) -> None:
    small = replace(PUBLISHED, target_area=1024, num_inference_steps=4)
    thin = replace(items[0], photo_size=(1600, 100))
    many = replace(items[1], request=replace(items[1].request, num_inference_steps=None, num_reasoning_steps=9))
    unmeasured = replace(items[3], request=replace(items[3].request, step_cache="mag", num_inference_steps=12))
    possible, refused = sort_out([thin, many, items[2], unmeasured], small)
    assert possible == (items[2],)
    assert [refusal.place for refusal in refused] == ["row 1", "row 2", "row 4"]
    assert "'published' has none" in refused[2].reason
    assert "too thin" in refused[0].reason and "num_reasoning_steps 9 is more than" in refused[1].reason


def test_a_batch_writes_what_its_edits_are(job: BatchJob, editor: Editor) -> None:
    done = run(job, editor)
    assert [record["key"] for record in done] == lines(job.folder) == [f"photo{k % 3}-{k}" for k in (0, 1, 2, 4, 5, 3)]
    for item in job.items:
        single = editor.edit(item.request)
        path = job.folder / f"{item.name}.png"
        difference = np.asarray(load_image(path), int) - np.asarray(single.image, int)
        assert np.abs(difference).max() <= 1
        assert read_metadata(path) == describe(single)
    assert done[0]["together"] == 2 and done[-1]["together"] == 1 and done[-1]["size"] == [64, 48]
    assert done[0]["hashes"]["image"] == image_sha256(job.items[0].request.image) and done[0]["time_s"] > 0


def test_videos_show_the_reasoning_where_there_is_any(job: BatchJob, editor: Editor) -> None:
    plain, thinking = job.items[0], replace(job.items[1], request=replace(job.items[1].request, reasoning=True))
    records = run(replace(job, items=(plain, thinking)), editor, video=True)
    assert [record["files"] for record in records] == [[f"{i.name}.png", f"{i.name}.mp4"] for i in (plain, thinking)]
    whole = editor.edit(replace(thinking.request, return_trajectory=True)).trajectory
    assert whole is not None
    assert read_video(job.folder / f"{plain.name}.mp4").shape[0] == 5
    assert read_video(job.folder / f"{thinking.name}.mp4").shape == whole.shape


def test_a_job_that_was_stopped_goes_on_and_gives_the_same_pixels(
    job: BatchJob, components: Components, tmp_path: Path
) -> None:
    whole = replace(job, folder=tmp_path / "whole")
    run(whole, Editor(components, device="cpu"))
    for cut in (1, 2, 4):
        part = replace(job, folder=tmp_path / f"cut{cut}")
        run(part, Editor(components, device="cpu"))
        kept = (part.folder / "results.jsonl").read_bytes().splitlines(keepends=True)
        # As a kill leaves it: whole lines, half a line, and the files of an item whose line is not there yet.
        (part.folder / "results.jsonl").write_bytes(b"".join(kept[:cut]) + kept[cut][:30])
        again = run(part, Editor(components, device="cpu"))
        assert [record["key"] for record in again] == lines(whole.folder)[cut:]
        assert lines(part.folder) == lines(whole.folder) and pixels(part.folder) == pixels(whole.folder)
    assert run(whole, Editor(components, device="cpu")) == []


def test_asked_to_stop_it_ends_after_the_batch_under_way(job: BatchJob, editor: Editor) -> None:
    asked: list[Progress] = []

    def on_progress(batch: Batch, progress: Progress) -> None:
        if progress.stage == "decode":
            asked.append(progress)

    first = run(job, editor, on_progress=on_progress, should_stop=lambda: bool(asked))
    assert len(first) == 2
    assert len(run(job, editor)) == 4 and len(set(lines(job.folder))) == 6


def test_looking_ahead_changes_no_pixel_and_encodes_beside_the_transformer(
    job: BatchJob, components: Components, counted: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    encoded = InputEncoder.encode

    def noted(*args: Any, **kwargs: Any) -> Any:
        threads.append(threading.current_thread().name.split("_")[0])
        return encoded(*args, **kwargs)

    monkeypatch.setattr(InputEncoder, "encode", noted)
    run(job, Editor(components, device="cpu"))
    ahead, here = (
        "look-ahead",
        "MainThread",
    )  # batches of 2, 2, 1 and 1: an item at a time ahead, a batch at a time here
    assert threads == [here, ahead, ahead, here, ahead, here, ahead, here]
    assert counted.count["encode"] == 4 and counted.count["text_encoder"] == 6 + 1  # each once, and the negative prompt
    monkeypatch.setattr(BatchEditor, "encode", lambda *_: None)
    other = replace(job, folder=tmp_path / "without")
    run(other, Editor(components, device="cpu"))
    assert pixels(other.folder) == pixels(job.folder)


def test_with_offload_nothing_is_encoded_ahead(
    job: BatchJob, components: Components, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BatchEditor, "encode", lambda *_: pytest.fail("parts would move while others work"))
    assert len(run(job, Editor(components, device="cpu", offload=True))) == 6


def failing_when(
    monkeypatch: pytest.MonkeyPatch, wrong: Callable[[Sequence[EditRequest]], BaseException | None]
) -> list[int]:
    """Editors fail with what `wrong` gives; notes the size of each batch that is tried."""
    edit_all, sizes = Editor._edit_all, []

    def edit(self: Editor, requests: Sequence[EditRequest], *arguments: Any) -> list[EditResult]:
        sizes.append(len(requests))
        error = wrong(requests)
        if error is not None:
            raise error
        return edit_all(self, requests, *arguments)

    monkeypatch.setattr(Editor, "_edit_all", edit)
    return sizes


def test_an_edit_that_fails_is_kept_with_its_error_and_costs_no_other(
    job: BatchJob, editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan = ChronoEditError("the latents are not finite after step 1")
    sizes = failing_when(monkeypatch, lambda requests: nan if any(r.seed == 2 for r in requests) else None)
    records = {record["key"]: record for record in run(replace(job, batch_size=4), editor)}
    assert sizes == [4, 2, 2, 1, 1, 1, 1]
    failed = records.pop("photo2-2")
    assert (failed["status"], failed["files"], failed["error"]) == ("failed", [], str(nan))
    assert all(record["status"] == "done" for record in records.values()) and len(records) == 5
    assert not (job.folder / "photo2-2.png").exists()
    assert run(replace(job, batch_size=4), editor) == []  # it has been tried
    sizes.clear()
    assert [r["status"] for r in run(replace(job, batch_size=4, retry_failed=True), editor)] == ["failed"]
    assert sizes == [1]
    monkeypatch.undo()
    assert [r["status"] for r in run(replace(job, batch_size=4, retry_failed=True), editor)] == ["done"]
    assert Ledger(job.folder / "results.jsonl").get("photo2-2")["status"] == "done"  # type: ignore[index]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_where_memory_runs_out_later_batches_are_smaller(
    job: BatchJob, random_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    editor = Editor(open_checkpoint(random_checkpoint, device="cpu"), device="cpu")
    sizes = failing_when(monkeypatch, lambda requests: error if len(requests) > 1 else None)
    records = run(job, editor)
    assert sizes == [2, 1, 1, 1, 1, 1, 1]
    assert all(record["status"] == "done" and record["together"] == 1 for record in records)
    sizes = failing_when(monkeypatch, lambda requests: error)
    other = replace(job, folder=job.folder / "other", items=job.items[:1])
    assert run(other, editor)[0]["error"].startswith("out of memory in the stage 'load' (")
    assert sizes == [1, 1] and editor.placement.layout == "disk"  # tried once more, with weights left in their files


def test_an_unknown_error_is_logged_with_its_trace(
    job: BatchJob, editor: Editor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failing_when(monkeypatch, lambda requests: RuntimeError("a kernel is missing\nat line 3"))
    records = run(replace(job, items=job.items[:1]), editor)
    assert records[0]["error"] == "RuntimeError: a kernel is missing"
    assert caplog.records[-1].exc_info is not None


def test_a_cancelled_edit_ends_the_job(job: BatchJob, editor: Editor) -> None:
    with pytest.raises(EditCancelled):
        run(job, editor, on_progress=lambda batch, progress: progress.stage != "denoise")
    assert not (job.folder / "results.jsonl").exists()


def test_a_picture_cut_short_fails_alone(job: BatchJob, editor: Editor) -> None:
    path = Path(str(job.items[1].request.image))
    path.write_bytes(path.read_bytes()[:300])
    records = {record["key"]: record for record in run(job, editor)}
    assert [k for k, record in records.items() if record["status"] == "failed"] == ["photo1-1", "photo1-4"]
    assert "photo1.png is damaged or cut short" in records["photo1-1"]["error"]


def test_the_folder_of_another_job_is_left_alone(job: BatchJob, editor: Editor, tmp_path: Path) -> None:
    run(replace(job, items=job.items[:2]), editor)
    run(job, editor)  # more rows: it goes on
    before = {path.name: path.read_bytes() for path in job.folder.iterdir()}
    with pytest.raises(OutputError, match="holds a batch made otherwise: model differ; choose another --output"):
        replace(job, made_with={"model": "other"}).open()
    changed = replace(job.items[0], request=replace(job.items[0].request, prompt="another"))
    with pytest.raises(OutputError, match=r"has photo0-0 already, of another request than row 1 asks for"):
        replace(job, items=(changed,)).open()
    assert before == {path.name: path.read_bytes() for path in job.folder.iterdir()}
    with pytest.raises(OutputError, match=r"photo1\.png is one of the pictures to edit"):
        replace(job, folder=tmp_path, items=(*job.items, replace(job.items[0], name="photo1"))).open()


def test_files_that_are_there_are_not_overwritten(job: BatchJob) -> None:
    job.folder.mkdir()
    (job.folder / "photo1-1.mp4").write_text("mine")
    with pytest.raises(OutputError, match=r"photo1-1\.mp4 is there already and not of this batch"):
        job.open()
    assert [path.name for path in job.folder.iterdir()] == ["photo1-1.mp4"]


def test_a_claim_that_cannot_be_read(job: BatchJob) -> None:
    job.folder.mkdir()
    (job.folder / "batch.json").write_text("{")
    with pytest.raises(OutputError, match=r"batch\.json cannot be read"):
        job.open()


def test_a_model_that_has_changed_is_noticed(job: BatchJob, editor: Editor) -> None:
    run(replace(job, items=job.items[:2]), editor)
    path = job.folder / "results.jsonl"
    path.write_text(path.read_text().replace(editor.components.model_hash, "0" * 64))
    with pytest.raises(ChronoEditError, match="the model or a LoRA has changed since the first results"):
        run(job, editor)
    assert len(lines(job.folder)) == 2


def test_a_job_moves_with_the_name_of_its_manifest_not_with_the_folder_one_stands_in(
    job: BatchJob, editor: Editor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(job, editor)
    monkeypatch.chdir(tmp_path)
    near = [
        replace(item, request=replace(item.request, image=Path(str(item.request.image)).name)) for item in job.items
    ]
    assert run(replace(job, items=tuple(near)), editor) == []


def test_a_worker_gets_the_pictures_and_gives_the_files(job: BatchJob, components: Components, tmp_path: Path) -> None:
    ledger = job.open()
    batches = job.batches(ledger, components.settings)
    stopped: list[SentBatch] = []
    sent = [pickle.loads(pickle.dumps(each)) for each in packed(batches)]
    for each in packed(batches, lambda: len(stopped) == 1):
        stopped.append(each)
    assert len(stopped) == 1
    for path in tmp_path.glob("*.png"):
        path.unlink()
    work = worker(lambda: Editor(components, device="cpu"), describe, False)
    job.run(ledger, batches, lambda _: ((each.batch, pickle.loads(pickle.dumps(work(each)))) for each in sent), print)
    for item in job.items:
        metadata = read_metadata(job.folder / f"{item.name}.png")
        assert metadata is not None and metadata["request"]["image"] == item.request.image
    (gone,) = packed(batches[:1])
    (failed, _) = work(gone)
    assert failed.record["status"] == "failed" and "No such file" in failed.record["error"]


def test_bytes_that_are_no_picture_are_told_with_their_path(job: BatchJob) -> None:
    batch = Batch(items=job.items[:1], wanted=frozenset(), group=0)
    (error,) = read_photos(batch, {job.items[0].name: b"text"})
    assert str(error).startswith(f"{job.items[0].request.image}: the picture is not a picture")


def test_a_batch_size_below_one(job: BatchJob) -> None:
    with pytest.raises(ValueError, match="batch size 0 is below 1"):
        replace(job, batch_size=0)
