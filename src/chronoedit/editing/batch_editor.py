"""The edits of a batch job by one model, here or in a worker of a cluster: pictures in, files' bytes out.

A picture that cannot be read and an edit that fails are outcomes with an error. A batch that fails is done again in
halves, so that only the edits at fault are lost.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from PIL import Image

from chronoedit.data.manifest import BatchItem
from chronoedit.editing.batch_job import DONE, FAILED, Batch, Outcome, asked
from chronoedit.editing.editor import Editor
from chronoedit.editing.prepare import prepare
from chronoedit.errors import CheckpointError, ChronoEditError, EditCancelled, ImageError, OutOfMemory
from chronoedit.media import encode_image, encode_video, image_sha256, load_image
from chronoedit.request import EditRequest, EditResult, Progress
from chronoedit.sampling.guidance import is_guided, scales

logger = logging.getLogger(__name__)

Describe = Callable[[EditResult], dict[str, Any]]
OnProgress = Callable[[Progress], bool | None]
OnBatchProgress = Callable[[Batch, Progress], bool | None]


@dataclass(frozen=True)
class Photo:
    """A picture that was read, and the SHA-256 of its file."""

    image: Image.Image
    sha256: str


Photos = list[Photo | ImageError]


def read_photos(batch: Batch, sources: Mapping[str, bytes | ImageError] | None = None) -> Photos:
    """The pictures of a batch, or why one cannot be read; `sources` are the files' bytes by item, where they came."""
    return [_photo(item, None if sources is None else sources[item.name]) for item in batch.items]


def _photo(item: BatchItem, source: bytes | ImageError | None) -> Photo | ImageError:
    path = Path(str(item.request.image))
    try:
        if source is None:
            return Photo(load_image(path), image_sha256(path))
        if isinstance(source, ImageError):
            return source
        return Photo(load_image(source), hashlib.sha256(source).hexdigest())
    except ImageError as error:
        return error if source is None else ImageError(f"{path}: {error}")


class BatchEditor:
    """Edits batches with an editor; `describe` gives a picture's metadata, `video` asks for mp4s beside the pictures.

    Since memory ran out on a batch, later ones of its group go in parts of half its size; where it runs out on one edit
    alone, that and the later ones are done in a layout that takes less.
    """

    def __init__(self, editor: Editor, describe: Describe, *, video: bool = False) -> None:
        self.editor = editor
        self._describe = describe
        self._video = video
        self._most: dict[int, int] = {}
        self._encoding = Lock()

    def edit(self, batch: Batch, photos: Photos, progress: OnProgress | None = None) -> list[Outcome]:
        """What became of each item, in order. Raises CheckpointError, and EditCancelled from `progress`."""
        start = time.perf_counter()
        pairs = list(zip(batch.items, photos, strict=True))
        ready = [(item, photo) for item, photo in pairs if isinstance(photo, Photo)]
        made = iter(self._edit(batch.group, [self._request(item, photo, progress) for item, photo in ready]))
        outcomes = []
        for item, photo in pairs:
            found = str(photo) if isinstance(photo, ImageError) else next(made)
            outcomes.append(_failed(item, found) if isinstance(found, str) else self._made(item, photo, *found))
        seconds = round((time.perf_counter() - start) / len(batch.items), 4)
        return [replace(outcome, record={**outcome.record, "time_s": seconds}) for outcome in outcomes]

    def encode(self, batch: Batch, photos: Photos) -> None:
        """Encode a batch's inputs into the editor's cache; whatever cannot be is left for its edit to say."""
        components = self.editor.components
        with torch.no_grad(), self._encoding:
            encoder = self.editor.input_encoder()
            for item, photo in zip(batch.items, photos, strict=True):
                with suppress(ChronoEditError, ValueError, RuntimeError, MemoryError):
                    if isinstance(photo, Photo):
                        edit = prepare(self._request(item, photo, None), photo.image, components)
                        encoder.encode([edit], guided=_is_guided(edit.request))

    def _request(self, item: BatchItem, photo: Photo, progress: OnProgress | None) -> EditRequest:
        trajectory = self._video and item.request.reasoning
        return replace(item.request, image=photo.image, return_trajectory=trajectory, progress=progress)

    def _edit(self, group: int, requests: Sequence[EditRequest]) -> list[tuple[EditResult, int] | str]:
        """Each result with the number of edits that were done with it, or what went wrong with it alone."""
        most = self._most.get(group, len(requests))
        if len(requests) > most:
            return [
                found for at in range(0, len(requests), most) for found in self._edit(group, requests[at : at + most])
            ]
        if not requests:
            return []
        found = self._tried(requests)
        if not isinstance(found, Failure):
            return [(result, len(requests)) for result in found]
        if len(requests) == 1:
            if found.out_of_memory is not None and self._stepped_down(found.out_of_memory):
                found = self._tried(requests)
            return [found.reason] if isinstance(found, Failure) else [(found[0], 1)]
        half = (len(requests) + 1) // 2
        logger.warning("%d edits together failed (%s); they are done %d at a time", len(requests), found.reason, half)
        if found.out_of_memory:
            self._most[group] = half
        return [*self._edit(group, requests[:half]), *self._edit(group, requests[half:])]

    def _stepped_down(self, error: OutOfMemory) -> bool:
        with self._encoding:  # nothing moves while the next batch is encoded
            return self.editor.step_down(error)

    def _tried(self, requests: Sequence[EditRequest]) -> list[EditResult] | Failure:
        """The results; or the reason, and then nothing holds the memory of what was tried."""
        try:
            return self.editor.edit_batch(requests)
        except (CheckpointError, EditCancelled):  # no fault of an item: every other would end so too
            raise
        except OutOfMemory as error:
            return Failure(str(error), out_of_memory=error)
        except (ChronoEditError, ValueError) as error:
            return Failure(str(error))
        except RuntimeError as error:
            logger.exception("an edit failed in a way that is not known")
            return Failure(f"{type(error).__name__}: {_first_line(error)}")

    def _made(self, item: BatchItem, photo: Photo | ImageError, result: EditResult, together: int) -> Outcome:
        """The files of a result, whose picture is named by its file again."""
        assert isinstance(photo, Photo)
        request = replace(result.request, image=item.request.image, progress=None)
        result = replace(result, request=request, hashes={**result.hashes, "image": photo.sha256})
        picture, clip = f"{item.name}.png", f"{item.name}.mp4"
        files = {picture: encode_image(result.image, picture, self._describe(result))}
        if self._video:
            frames = result.video if result.trajectory is None else result.trajectory
            files[clip] = encode_video(np.asarray(frames), clip)
        record = {
            **_about(item),
            "status": DONE,
            "error": None,
            "files": list(files),
            "size": list(result.image.size),
            "hashes": result.hashes,
            "together": together,
        }
        return Outcome(name=item.name, record=record, files=files)


@dataclass(frozen=True)
class Failure:
    """Why edits failed."""

    reason: str
    out_of_memory: OutOfMemory | None = None


def _failed(item: BatchItem, reason: str) -> Outcome:
    record = {**_about(item), "status": FAILED, "error": reason, "files": []}
    return Outcome(name=item.name, record=record)


def _about(item: BatchItem) -> dict[str, Any]:
    request = item.request
    return {
        "row": item.place,
        "image": str(request.image),
        "prompt": request.prompt,
        "seed": request.seed,
        "asked": asked(item),
    }


def _is_guided(request: EditRequest) -> bool:
    assert request.guidance_scale is not None and request.num_inference_steps is not None  # filled in by prepare
    return any(map(is_guided, scales(request.guidance_scale, request.num_inference_steps)))


def _first_line(error: BaseException) -> str:
    return str(error).split("\n")[0] or "no more to be had"


class _LookAhead:
    """Reads the next batch's pictures while this one is edited, and encodes them while the transformer runs.

    Only then: the autoencoder, which holds state while it works, decodes after that, and waits for this to be done.
    With offload nothing is encoded ahead, since parts move from and to the device.
    """

    def __init__(self, editor: BatchEditor, pool: ThreadPoolExecutor, upcoming: Batch | None, tell: OnProgress) -> None:
        self._editor = editor
        self._pool = pool
        self._upcoming = upcoming
        self._tell = tell
        self._photos: Future[Photos] | None = pool.submit(read_photos, upcoming) if upcoming is not None else None
        self._encoded: Future[None] | None = None

    def update(self, progress: Progress) -> bool | None:
        """The progress of the edit under way, which is passed on."""
        if progress.stage == "denoise" and self._encoded is None and self._photos is not None and self._may_encode:
            self._encoded = self._pool.submit(self._encode)
        if progress.stage in ("encode", "decode") and self._encoded is not None:
            self._encoded.result()
        return self._tell(progress)

    @property
    def _may_encode(self) -> bool:
        return not self._editor.editor.placement.offload

    def photos(self) -> Photos | None:
        """The next batch's pictures; nothing works beside the caller any more."""
        if self._encoded is not None:
            self._encoded.result()
        return None if self._photos is None else self._photos.result()

    def _encode(self) -> None:
        assert self._upcoming is not None and self._photos is not None
        self._editor.encode(self._upcoming, self._photos.result())


def edit_here(
    editor: BatchEditor,
    batches: Iterable[Batch],
    *,
    on_progress: OnBatchProgress = lambda batch, progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Batch, list[Outcome]]]:
    """Edit batches in this process, each with what became of its items; asked to stop, it ends after the one under way.

    Raises as `BatchEditor.edit`.
    """
    source = iter(batches)
    current, photos = next(source, None), None
    with ThreadPoolExecutor(1, thread_name_prefix="look-ahead") as pool:
        while current is not None and not should_stop():
            upcoming = next(source, None)
            ahead = _LookAhead(editor, pool, upcoming, partial(on_progress, current))
            yield current, editor.edit(current, read_photos(current) if photos is None else photos, ahead.update)
            current, photos = upcoming, ahead.photos()


def edit_in_turn(
    editor: BatchEditor, batches: Iterable[Batch], *, on_progress: OnBatchProgress = lambda batch, progress: None
) -> Iterator[tuple[Batch, list[Outcome]]]:
    """As `edit_here`, but a batch is asked for when the one before is done: for batches that others could take."""
    for batch in batches:
        yield batch, editor.edit(batch, read_photos(batch), partial(on_progress, batch))


@dataclass(frozen=True)
class SentBatch:
    """A batch on its way to a worker, with the bytes of its pictures: the worker may not reach their files."""

    batch: Batch
    sources: dict[str, bytes | ImageError]


def packed(batches: Iterable[Batch], should_stop: Callable[[], bool] = lambda: False) -> Iterator[SentBatch]:
    """Batches to send, read as they are needed; none after it was asked to stop."""
    for batch in batches:
        if should_stop():
            return
        yield SentBatch(batch, {item.name: _bytes_of(item) for item in batch.items})


def _bytes_of(item: BatchItem) -> bytes | ImageError:
    path = Path(str(item.request.image))
    try:
        return path.read_bytes()
    except OSError as error:
        return ImageError(f"{path} cannot be read: {error.strerror or error}; check its path and permissions")


def worker(load: Callable[[], Editor], describe: Describe, video: bool) -> Callable[[SentBatch], list[Outcome]]:
    """What a worker of a cluster does with a batch; called in the worker, which loads its model once."""
    editor = BatchEditor(load(), describe, video=video)
    return lambda sent: editor.edit(sent.batch, read_photos(sent.batch, sent.sources))
