"""Pictures and video in and out: whatever people have becomes RGB in sRGB; a file is written whole or not at all.

Pixels are H W 3 or T H W 3, uint8.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageCms, ImageDraw, ImageFont, ImageOps, PngImagePlugin, UnidentifiedImageError

from chronoedit.errors import ImageError, OutputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv")
MIN_SIDE_PX = 16
MAX_ASPECT_RATIO = 16
METADATA_KEY = "chronoedit"

_EXIF_DESCRIPTION = 0x010E
_MAX_16_BIT = 65535
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)  # what decoders raise
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_BT709 = 1  # FFmpeg's number for it, as matrix, primaries and transfer alike
_LIMITED_RANGE = 1


def load_image(source: str | Path | bytes | Image.Image | np.ndarray | torch.Tensor) -> Image.Image:
    """The picture as RGB in sRGB, upright, transparent parts over white.

    `source` is a path, the bytes of a file, a PIL image of any mode, an array `H W 3` of uint8 or a tensor `3 H W` in
    [-1, 1]. 16-bit grey is scaled to 8 bits (value / 257, to nearest); an embedded ICC profile is converted; EXIF
    rotation is applied; of an animation the first frame is taken, with a warning.

    Raises ImageError when the file is missing, empty, a folder, damaged or no picture, or when the picture has a side
    under `MIN_SIDE_PX`, an aspect ratio over `MAX_ASPECT_RATIO` or more pixels than Pillow holds for safe.
    """
    if isinstance(source, Image.Image):
        name, image = "the picture", source
    elif isinstance(source, (str, Path)):
        name = str(source)
        image = _open(_read_bytes(Path(source)), name)
    elif isinstance(source, bytes):
        name = "the picture"
        image = _open(_not_empty(source, name), name)
    else:
        name, image = "the picture", Image.fromarray(_pixels(source))
    _check_size(name, image)
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format in ("GIF", "PNG", "WEBP"):  # not MPO: a phone's photo with a preview
        logger.warning("%s is an animation of %d frames; the first is used", name, frames)
    try:
        image.load()
        image = ImageOps.exif_transpose(image)
    except _DAMAGE as error:
        raise ImageError(
            f"{name} is damaged or cut short ({error}); open it in a viewer and save it again, or fetch it anew"
        ) from error
    return _to_srgb(image, name)


def image_sha256(source: str | Path | Image.Image | np.ndarray | torch.Tensor) -> str:
    """Hex SHA-256 of a file's bytes, or of the type, shape and pixels of a picture in memory.

    Raises ImageError when the file cannot be read.
    """
    if isinstance(source, (str, Path)):
        return hashlib.sha256(_read_bytes(Path(source))).hexdigest()
    if isinstance(source, (Image.Image, np.ndarray)):
        pixels = np.asarray(source)
    else:
        pixels = source.detach().float().cpu().numpy()
    header = f"{pixels.dtype}{pixels.shape}".encode()
    return hashlib.sha256(header + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _read_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise ImageError(f"{path} is a folder; give the path of one picture in it")
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError(f"there is no file {path}; check the path (web addresses must be downloaded first)") from error
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}; check its permissions") from error
    return _not_empty(data, str(path))


def _not_empty(data: bytes, name: str) -> bytes:
    if not data:
        raise ImageError(f"{name} is empty (0 bytes); expected a picture, such as PNG or JPEG")
    return data


def _open(data: bytes, name: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name} is not a picture that can be read; give a PNG, JPEG, WebP, TIFF, GIF or BMP"
        ) from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} has too many pixels to be decoded safely; scale it down first ({error})") from error
    except _DAMAGE as error:
        raise ImageError(f"{name} is damaged ({error}); save it again in a picture editor") from error


def _pixels(source: np.ndarray | torch.Tensor) -> np.ndarray:
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
            raise ImageError(f"the picture is an array {source.shape} of {source.dtype}; give H W 3 of uint8")
        return source
    if source.ndim != 3 or source.shape[0] != 3:
        raise ImageError(f"the picture is a tensor {tuple(source.shape)}; give 3 H W of floats in [-1, 1]")
    values = source.detach().float().cpu().numpy().transpose(1, 2, 0)  # h w c
    return np.rint((values + 1) * 127.5).clip(0, 255).astype(np.uint8)


def _check_size(name: str, image: Image.Image) -> None:
    width, height = image.size
    if min(width, height) < MIN_SIDE_PX:
        raise ImageError(f"{name} is {width}x{height} px; give one of at least {MIN_SIDE_PX} px a side")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise ImageError(
            f"{name} is {width}x{height} px, longer than {MAX_ASPECT_RATIO}:1; crop it to the part that is to change"
        )


def _to_srgb(image: Image.Image, name: str) -> Image.Image:
    profile = image.info.get("icc_profile")
    color, alpha = _split_alpha(image, name)
    color = _apply_profile(color, profile, name) if profile else color.convert("RGB")
    if alpha is None:
        return color
    white = Image.new("RGB", color.size, "white")
    return Image.composite(color, white, alpha)


def _split_alpha(image: Image.Image, name: str) -> tuple[Image.Image, Image.Image | None]:
    """Colour of 8 bits a channel (L, RGB, CMYK, ...) and the opacity (L), None where all is opaque."""
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        return _grey_to_8_bit(image, name)
    if image.mode in ("P", "PA"):
        transparent = image.mode == "PA" or "transparency" in image.info
        image = image.convert("RGBA" if transparent else "RGB")
    elif "transparency" in image.info:  # one colour of an opaque picture declared transparent
        image = image.convert("RGBA")
    if image.mode in ("La", "RGBa"):  # premultiplied
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if image.mode in ("LA", "RGBA"):
        return image.convert(image.mode[:-1]), image.getchannel("A")
    return (image.convert("L") if image.mode == "1" else image), None


def _grey_to_8_bit(image: Image.Image, name: str) -> tuple[Image.Image, Image.Image | None]:
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > _MAX_16_BIT:
        raise ImageError(
            f"{name} holds {values.dtype} values from {values.min():g} to {values.max():g}, which have no agreed white;"
            f" save it with 8 or 16 bits a channel"
        )
    grey = Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    key = image.info.get("transparency")
    alpha = None if key is None else Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8))
    return grey, alpha


def _apply_profile(color: Image.Image, profile: bytes, name: str) -> Image.Image:
    """The colours seen through the embedded ICC profile, as sRGB; one that does not fit is left out, with a warning."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(
            color, source, ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        logger.warning("%s has a colour profile that cannot be used (%s); its colours are taken for sRGB", name, error)
        return color.convert("RGB")
    assert converted is not None  # not in place
    return converted


def save_image(image: Image.Image, path: str | Path, metadata: Mapping[str, Any] | None = None) -> None:
    """Write a picture as `encode_image` makes it; what was at `path` is replaced only once the new file is whole.

    Folders are made as needed. Raises ValueError for another suffix, OutputError when it cannot be written.
    """
    write_files({Path(path): encode_image(image, path, metadata)})


def encode_image(image: Image.Image, path: str | Path, metadata: Mapping[str, Any] | None = None) -> bytes:
    """The picture as the bytes of a file, its format by the suffix of `path`; JPEG and WebP at quality 95.

    `metadata` goes along as JSON (PNG text; EXIF elsewhere). Raises ValueError for another suffix or what is not JSON,
    OutputError for metadata too long for JPEG.
    """
    suffix = check_suffix(path, IMAGE_SUFFIXES)
    text = None if metadata is None else json.dumps(metadata, allow_nan=False)
    buffer = io.BytesIO()
    if suffix == ".png":
        chunks = PngImagePlugin.PngInfo()
        if text is not None:
            chunks.add_itxt(METADATA_KEY, text)
        image.save(buffer, "PNG", pnginfo=chunks)
        return buffer.getvalue()
    exif = Image.Exif()
    if text is not None:
        exif[_EXIF_DESCRIPTION] = f"{METADATA_KEY} {text}"  # json.dumps gives ASCII, which this tag demands
    try:
        image.convert("RGB").save(buffer, "WEBP" if suffix == ".webp" else "JPEG", quality=95, exif=exif)
    except ValueError as error:
        raise OutputError(f"{path} cannot hold {len(text or '')} bytes of metadata ({error}); use .png") from error
    return buffer.getvalue()


def read_metadata(path: str | Path) -> dict[str, Any] | None:
    """What `save_image` wrote along with a picture, or None when there is nothing of ours.

    Raises ImageError when the file is no picture or our entry is damaged.
    """
    path = Path(path)
    image = _open(_read_bytes(path), str(path))
    text = image.info.get(METADATA_KEY)
    if text is None:
        description = image.getexif().get(_EXIF_DESCRIPTION)
        if not isinstance(description, str) or not description.startswith(METADATA_KEY + " "):
            return None
        text = description.removeprefix(METADATA_KEY + " ")
    try:
        metadata = json.loads(text)
    except (TypeError, ValueError) as error:
        raise ImageError(f"the {METADATA_KEY} entry of {path} is damaged ({error}); use the original file") from error
    if not isinstance(metadata, dict):
        raise ImageError(f"the {METADATA_KEY} entry of {path} is a {type(metadata).__name__}; expected a JSON object")
    return metadata


def contact_sheet(
    rows: Sequence[Sequence[Image.Image]],
    labels: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    margin_px: int = 8,
) -> Image.Image:
    """Pictures side by side at their own sizes, row under row, on white.

    `labels` has one text a row, written above it; `columns` one title a column. Raises ValueError without pictures or
    with labels that do not count as the rows do.
    """
    if not rows or not any(rows):
        raise ValueError("a contact sheet needs at least one picture; got none")
    if labels is not None and len(labels) != len(rows):
        raise ValueError(f"{len(labels)} labels for {len(rows)} rows; give one a row")
    cell_w = max(image.width for row in rows for image in row)
    sheet_w = max(len(row) for row in rows) * (cell_w + margin_px) + margin_px
    font_px = max(12, min(24, cell_w // 12))
    font = ImageFont.load_default(size=font_px)
    titles = [_wrap(title, font, cell_w) for title in columns or ()]
    texts = [_wrap(label, font, sheet_w - 2 * margin_px) for label in labels or [""] * len(rows)]
    line_px = int(font_px * 1.4)
    head_px = max((text.count("\n") + 1 for text in titles if text), default=0) * line_px
    text_px = [(text.count("\n") + 1) * line_px if text else 0 for text in texts]
    row_px = [max((image.height for image in row), default=0) + margin_px for row in rows]
    sheet = Image.new("RGB", (sheet_w, head_px + sum(text_px) + sum(row_px) + margin_px), "white")
    draw = ImageDraw.Draw(sheet)
    for k, title in enumerate(titles):
        draw.multiline_text((margin_px + k * (cell_w + margin_px), margin_px // 2), title, "black", font)
    y = head_px + margin_px
    for row, text, above, height in zip(rows, texts, text_px, row_px, strict=True):
        draw.multiline_text((margin_px, y), text, "black", font)
        for k, image in enumerate(row):
            sheet.paste(image.convert("RGB"), (margin_px + k * (cell_w + margin_px), y + above))
        y += above + height
    return sheet


def _wrap(text: str, font: Any, width_px: int) -> str:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width_px:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def save_video(frames: np.ndarray, path: str | Path, fps: int = 8) -> None:
    """Write frames as `encode_video` makes them, whole or not at all; raises as `save_image` does."""
    write_files({Path(path): encode_video(frames, path, fps)})


def encode_video(frames: np.ndarray, path: str | Path, fps: int = 8) -> bytes:
    """Frames, uint8 `T H W 3`, as the bytes of a video file, the container by the suffix of `path`.

    H.264 (MPEG-4 part 2 where FFmpeg has no H.264) in BT.709 colours. An odd width or height is padded by one repeated
    pixel, since these codecs need even sizes. Raises ValueError for another suffix or other frames.
    """
    import av  # loads FFmpeg

    suffix = check_suffix(path, VIDEO_SUFFIXES)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise ValueError(f"frames are {frames.shape} of {frames.dtype}; give T H W 3 of uint8")
    height, width = frames.shape[1:3]
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    h264 = "libx264" in av.codecs_available
    buffer = io.BytesIO()
    container_format = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}[suffix]
    with av.open(buffer, "w", format=container_format) as container:
        # With mbtree the same frames give now one file, now another.
        options = {"crf": "14", "x264-params": "no-mbtree=1"} if h264 else {"qscale": "2"}
        stream: Any = container.add_stream("libx264" if h264 else "mpeg4", rate=fps, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace="ITU709")))
        container.mux(stream.encode())
    return buffer.getvalue()


def read_video(source: str | Path | bytes) -> np.ndarray:
    """All frames of a video, a path or a file's bytes, uint8 `T H W 3`.

    Raises ImageError when it is missing, damaged or no video.
    """
    import av

    path = "the video" if isinstance(source, bytes) else str(source)
    data = _not_empty(source, path) if isinstance(source, bytes) else _read_bytes(Path(source))
    try:
        with av.open(io.BytesIO(data), "r") as container:
            if not container.streams.video:
                raise ImageError(f"{path} has no video in it; give an mp4, mov or mkv")
            frames = [_rgb(frame) for frame in container.decode(video=0)]
    except (av.error.FFmpegError, OSError) as error:
        raise ImageError(f"{path} is not a video that can be read ({error}); give an mp4, mov or mkv") from error
    if not frames:
        raise ImageError(f"{path} has no frames; it is damaged or cut short")
    return np.stack(frames)  # t h w c


def _rgb(frame: Any) -> np.ndarray:
    matrix = "ITU709" if frame.colorspace == _BT709 else "DEFAULT"
    return frame.reformat(format="rgb24", src_colorspace=matrix).to_ndarray()


def check_suffix(path: str | Path, suffixes: Sequence[str]) -> str:
    """The path's suffix in lower case. Raises ValueError, naming the choices, when it is none of `suffixes`."""
    suffix = Path(path).suffix.lower()
    if suffix not in suffixes:
        raise ValueError(f"{path} ends in {suffix or 'no suffix'!r}; use one of {', '.join(suffixes)}")
    return suffix


def check_writable(path: str | Path) -> None:
    """Raise OutputError now if writing `path` could not succeed later; nothing is left behind."""
    path = Path(path).absolute()
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file to write")
    if path.exists() and not (path.is_file() and os.access(path, os.W_OK)):
        raise OutputError(f"{path} exists and cannot be replaced; choose another output or change its permissions")
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror} in {folder}; choose another output") from error


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, with its suffix, that becomes `path` when the block ends without an error.

    Folders are made as needed. On an error or an interrupt the temporary file goes and what was at `path` stays.
    Raises OutputError for errors of the operating system, a full disk included.
    """
    path = Path(os.path.realpath(path))  # a link keeps pointing where it did
    temporary = path.with_name(f".{os.urandom(8).hex()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        with suppress(OSError):  # not there: renamed, never written, or its folder is no folder
            temporary.unlink()


def write_files(files: Mapping[Path, bytes]) -> None:
    """Write all of these files, or none. Raises OutputError."""
    with ExitStack() as stack:
        for path, data in files.items():
            with open(stack.enter_context(atomic_path(path)), "xb") as file:
                file.write(data)


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all. Raises OutputError, for a full disk too."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        try:
            save_file(dict(tensors), temporary, metadata=dict(metadata or {}))
        except SafetensorError as error:  # its way to pass on what the operating system said
            raise OutputError(f"cannot write {path}: {error}; free some space or choose another place") from error


def _output_error(path: Path, error: OSError) -> OutputError:
    state = "the file that was there is untouched" if path.exists() else "nothing was written"
    if error.errno in _FULL:
        return OutputError(f"no space left to write {path} ({error.strerror}); {state}: free some space, then repeat")
    return OutputError(f"cannot write {path}: {error.strerror or error}; {state}: choose another output")
