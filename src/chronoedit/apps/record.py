"""What a picture remembers of its edit, and how that is asked for again (`--like`)."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chronoedit import __version__, media
from chronoedit.apps.options import ATTENTION, DEFAULT_MODEL, ModelFlags
from chronoedit.errors import ChronoEditError, ImageError
from chronoedit.request import EditRequest, EditResult

if TYPE_CHECKING:
    from chronoedit.editing.editor import Editor

logger = logging.getLogger(__name__)


def edit_metadata(result: EditResult, model: ModelFlags, variant: int = 0) -> dict[str, Any]:
    """What is written into the picture of one variant: all that it takes to make it again, and what it took."""
    return {
        "version": __version__,
        "request": result.request.to_json(),
        "variant": variant,
        "model": model.model_path or DEFAULT_MODEL,
        "base": model.base,
        "precision": model.precision,
        "attention": model.attention,
        "loras": [{"path": path, "scale": scale} for path, scale in model.loras()],
        "hashes": result.hashes,
        "timings_s": result.timings_s,
    }


@dataclass(frozen=True)
class Record:
    """The edit that a picture made here remembers."""

    path: Path
    metadata: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Record:
        """The record in a picture, or in the picture beside a video. Raises ImageError when there is none."""
        if path.suffix.lower() in media.VIDEO_SUFFIXES:
            path = path.with_suffix(".png")
        metadata = media.read_metadata(path)
        if metadata is None:
            raise ImageError(f"{path} holds no record of an edit; give a picture that chronoedit edit wrote")
        missing = [key for key in ("version", "request", "hashes") if key not in metadata]
        if missing:
            raise ImageError(f"the record of {path} lacks {', '.join(missing)}; give the file as it was written")
        if metadata["version"] != __version__:
            logger.warning(
                "%s was made by version %s, this is %s: pixels may differ", path, metadata["version"], __version__
            )
        return cls(path, metadata)

    @property
    def variant(self) -> int:
        """Which variant of its request the picture is."""
        return int(self.metadata.get("variant", 0))

    def request(self, image: Path | None) -> EditRequest:
        """The request, its picture found where it was or at `image`.

        Raises ChronoEditError when the picture is another, ImageError when it is not there, ValueError when it was
        never a file and none is given.
        """
        request = EditRequest.from_json(self.metadata["request"])
        if image is None and str(request.image).startswith("sha256:"):
            raise ValueError(f"the picture that {self.path} was made from was no file; give it with --input FILE")
        request = request if image is None else replace(request, image=image)
        try:
            found = media.image_sha256(request.image)
        except ImageError as error:
            raise ImageError(f"{error}; if the input of {self.path} has moved, name it with --input FILE") from error
        self._compare_hash(f"the input picture {request.image}", self.metadata["hashes"].get("image"), found)
        return request

    def model(self, flags: ModelFlags) -> ModelFlags:
        """The flags with the model and the LoRAs of the record, but for those that say where these are now."""
        loras = self.metadata.get("loras", [])
        complete = replace(
            flags,
            model_path=flags.model_path or self.metadata.get("model"),
            base=flags.base or self.metadata.get("base"),
            precision=flags.precision or self.metadata.get("precision"),
            attention=self.metadata.get("attention", ATTENTION) if flags.attention == ATTENTION else flags.attention,
            lora_path=flags.lora_path or tuple(Path(lora["path"]) for lora in loras),
            lora_scale=flags.lora_scale or tuple(lora["scale"] for lora in loras),
        )
        complete.check()
        self._check_loras(complete)
        return complete

    def check_model(self, editor: Editor) -> None:
        """Raise ChronoEditError when the model is another than that of the record."""
        source = editor.components.source
        self._compare_hash(f"the model {source}", self.metadata["hashes"].get("model"), editor.components.model_hash)

    def compare(self, picture: Path) -> None:
        """Say whether a picture that was written repeats the record's own, pixel for pixel.

        Another machine or library version can round otherwise, and JPEG and WebP lose detail: that is a warning.
        """
        first, second = (np.asarray(media.load_image(path)).astype(int) for path in (self.path, picture))
        if first.shape == second.shape and (first == second).all():
            print(f"the same as {self.path}, pixel for pixel")
            return
        if first.shape != second.shape:
            logger.warning("%s has another size than %s, which was changed since it was made", self.path, picture)
            return
        largest = np.abs(first - second).max()
        logger.warning(
            "same input, model and LoRAs, but pixels differ by up to %d of 255 from %s: another machine, library "
            "version or device, or a lossy format",
            largest,
            self.path,
        )

    def _check_loras(self, flags: ModelFlags) -> None:
        recorded = self.metadata["hashes"].get("loras", [])
        found = [hashlib.sha256(path.read_bytes()).hexdigest() for path in flags.lora_path]
        if len(recorded) != len(found):
            raise ChronoEditError(f"{self.path} was made with {len(recorded)} LoRAs, and {len(found)} are given")
        for path, before, now in zip(flags.lora_path, recorded, found, strict=True):
            self._compare_hash(f"the LoRA {path}", before, now)
        scales = [scale for _, scale in flags.loras()]
        before = [lora["scale"] for lora in self.metadata.get("loras", [])]
        if before and scales != before:
            raise ChronoEditError(f"{self.path} was made with --lora-scale {_words(before)}, not {_words(scales)}")

    def _compare_hash(self, name: str, before: object, now: str) -> None:
        if before != now:
            raise ChronoEditError(
                f"{name} is not the one that {self.path} was made from: sha256 {str(before)[:12]}… then, "
                f"{now[:12]}… now; give the original, or make a new edit without --like"
            )


def _words(values: Iterable[object]) -> str:
    return " ".join(map(str, values))
