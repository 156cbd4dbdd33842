"""Pictures as people have them, with their pixels checked; refusals; files that are whole or not written."""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from chronoedit import media
from chronoedit.errors import ImageError, OutputError

SIZE = (40, 24)  # width, height


def ramp(width: int = SIZE[0], height: int = SIZE[1]) -> np.ndarray:
    """A smooth RGB picture, each channel its own ramp."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack(
        [x * 255 // (width - 1), y * 255 // (height - 1), (x + y) * 255 // (width + height - 2)], -1
    ).astype(np.uint8)


def saved(tmp_path: Path, image: Image.Image, name: str, **options: object) -> Path:
    path = tmp_path / name
    image.save(path, **options)
    return path


def test_rgb_comes_through_untouched_from_path_pil_and_array(tmp_path: Path) -> None:
    pixels = ramp()
    path = saved(tmp_path, Image.fromarray(pixels), "a.png")
    for source in (path, str(path), Image.fromarray(pixels), pixels):
        image = media.load_image(source)
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_a_tensor_in_minus_one_to_one_becomes_8_bits() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(ramp()).permute(2, 0, 1) / 127.5 - 1
    np.testing.assert_array_equal(np.asarray(media.load_image(tensor)), ramp())


@pytest.mark.parametrize("name", ["grey.png", "grey.tiff"])
def test_16_bit_grey_is_scaled_not_cut(tmp_path: Path, name: str) -> None:
    values = np.linspace(0, 65535, SIZE[0] * SIZE[1]).reshape(SIZE[1], SIZE[0]).astype(np.uint16)
    image = media.load_image(saved(tmp_path, Image.fromarray(values), name))
    expected = np.rint(values / 257).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(image), np.repeat(expected[..., None], 3, -1))


def test_16_bit_rgb_png(tmp_path: Path) -> None:
    image = media.load_image(write_png16(tmp_path / "deep.png", ramp().astype(np.uint16) * 257))
    np.testing.assert_array_equal(np.asarray(image), ramp())


def write_png16(path: Path, pixels: np.ndarray) -> Path:
    """A 16-bit RGB PNG by hand, which Pillow reads and does not write."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def test_16_bit_grey_with_a_transparent_value(tmp_path: Path) -> None:
    values = np.full((24, 40), 1000, np.uint16)
    values[:12] = 40000
    image = Image.fromarray(values)
    image.info["transparency"] = 1000
    pixels = np.asarray(media.load_image(image))
    assert (pixels[:12] == 156).all() and (pixels[12:] == 255).all()


def test_grey_bilevel_and_float(tmp_path: Path) -> None:
    grey = Image.fromarray(ramp()[..., 0])
    np.testing.assert_array_equal(np.asarray(media.load_image(grey))[..., 1], ramp()[..., 0])
    bilevel = grey.point(lambda v: 255 * (v > 99)).convert("1")
    assert set(np.unique(np.asarray(media.load_image(bilevel)))) == {0, 255}
    with pytest.raises(ImageError, match="no agreed white"):
        media.load_image(Image.fromarray(np.ones((20, 20), np.float32) * 3))


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    image = Image.new("P", SIZE, 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(1, (0, 0, 20, 24))
    opaque = np.asarray(media.load_image(saved(tmp_path, image, "opaque.png")))
    assert (opaque[:, :20] == (200, 100, 50)).all() and (opaque[:, 20:] == (10, 20, 30)).all()
    path = saved(tmp_path, image, "clear.png", transparency=0)
    pixels = np.asarray(media.load_image(path))
    assert (pixels[:, :20] == (200, 100, 50)).all() and (pixels[:, 20:] == 255).all()


def test_alpha_goes_over_white(tmp_path: Path) -> None:
    pixels = np.zeros((24, 40, 4), np.uint8)
    pixels[..., 0] = 200
    pixels[:12, :, 3] = 255
    pixels[12:18, :, 3] = 51  # a fifth
    result = np.asarray(media.load_image(saved(tmp_path, Image.fromarray(pixels), "a.png")))
    assert (result[:12] == (200, 0, 0)).all()
    assert (result[12:18] == (244, 204, 204)).all()
    assert (result[18:] == 255).all()
    grey = np.asarray(media.load_image(Image.fromarray(pixels[..., [0, 3]], "LA")))
    assert (grey[:12] == 200).all() and (grey[18:] == 255).all()


def test_a_colour_declared_transparent(tmp_path: Path) -> None:
    image = Image.new("RGB", SIZE, (1, 2, 3))
    image.paste((9, 9, 9), (0, 0, 20, 24))
    pixels = np.asarray(media.load_image(saved(tmp_path, image, "t.png", transparency=(1, 2, 3))))
    assert (pixels[:, :20] == 9).all() and (pixels[:, 20:] == 255).all()


def test_cmyk(tmp_path: Path) -> None:
    image = Image.new("CMYK", SIZE, (255, 0, 0, 0))  # all cyan ink
    image.paste((0, 0, 0, 255), (0, 0, 20, 24))  # black ink
    pixels = np.asarray(media.load_image(saved(tmp_path, image, "c.tiff"))).astype(int)
    assert abs(pixels[:, :20] - 0).max() <= 1
    assert abs(pixels[:, 20:] - (0, 255, 255)).max() <= 1
    jpeg = np.asarray(media.load_image(saved(tmp_path, image, "c.jpg", quality=100))).astype(int)
    assert abs(jpeg[:, :16] - 0).max() <= 6 and abs(jpeg[:, 24:] - (0, 255, 255)).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path: Path, orientation: int) -> None:
    turned = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270"}
    turned |= {7: "TRANSVERSE", 8: "ROTATE_90"}
    stored = Image.fromarray(ramp())
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = media.load_image(saved(tmp_path, stored, "e.png", exif=exif))
    upright = stored.transpose(Image.Transpose[turned[orientation]]) if orientation > 1 else stored
    np.testing.assert_array_equal(np.asarray(result), np.asarray(upright))


def test_an_srgb_profile_changes_nothing(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = media.load_image(saved(tmp_path, Image.fromarray(ramp()), "s.png", icc_profile=profile))
    assert abs(np.asarray(image).astype(int) - ramp()).max() <= 1


def test_an_embedded_profile_is_converted_to_srgb(tmp_path: Path) -> None:
    # A Lab profile is the one other that lcms can make by itself: L 50 %, a and b 0 is mid grey, sRGB 119.
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    image = Image.new("LAB", SIZE, (128, 128, 128))
    image.info["icc_profile"] = profile
    assert abs(np.asarray(media.load_image(image)).astype(int) - 119).max() <= 2


def swapped_profile() -> bytes:
    """An sRGB profile whose red and blue primaries are exchanged, so that a picture in it has them exchanged."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(data[128:132], "big")
    for k in range(count):
        tag = slice(132 + 12 * k, 136 + 12 * k)
        if data[tag] in (b"rXYZ", b"bXYZ"):
            data[tag] = b"bXYZ" if data[tag] == b"rXYZ" else b"rXYZ"
    return bytes(data)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_profile_with_other_primaries(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGB", SIZE, (200, 90, 10))
    image = image.quantize(2) if mode == "P" else image.convert(mode)
    pixels = np.asarray(media.load_image(saved(tmp_path, image, "p.png", icc_profile=swapped_profile())))
    assert abs(pixels.astype(int) - (10, 90, 200)).max() <= 2


def test_a_profile_that_does_not_fit_is_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    image = Image.fromarray(ramp())
    image.info["icc_profile"] = b"no profile at all"
    np.testing.assert_array_equal(np.asarray(media.load_image(image)), ramp())
    assert "colour profile" in caplog.text


def test_an_animation_gives_its_first_frame_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = Image.new("RGB", SIZE, "red"), Image.new("RGB", SIZE, "blue")
    path = saved(tmp_path, first, "a.gif", save_all=True, append_images=[second])
    assert media.load_image(path).getpixel((5, 5)) == (255, 0, 0)
    assert "animation of 2 frames" in caplog.text


def jpeg_bytes() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(ramp(200, 200)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.png", None, "there is no file"),
        ("text.png", b"these are words, not pixels", "not a picture"),
        ("cut.jpg", jpeg_bytes()[: len(jpeg_bytes()) // 2], "cut short"),
        ("empty.png", b"", "empty"),
    ],
)
def test_files_that_are_no_pictures(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        media.load_image(path)
    assert name in str(caught.value)


def test_every_cut_of_a_png_is_refused_as_an_image_error(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(ramp()).save(buffer, "PNG")
    for length in range(1, len(buffer.getvalue()) - 16, 37):
        path = tmp_path / "cut.png"
        path.write_bytes(buffer.getvalue()[:length])
        with pytest.raises(ImageError):
            media.load_image(path)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is a folder"):
        media.load_image(tmp_path)


@pytest.mark.parametrize(
    ("size", "message"), [((1, 1), "at least 16 px"), ((20000, 20), "16:1"), ((20, 20000), "16:1")]
)
def test_sizes_out_of_bounds(tmp_path: Path, size: tuple[int, int], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        media.load_image(saved(tmp_path, Image.new("RGB", size), "s.png"))


def test_a_decompression_bomb_is_refused_unread(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.new("1", (20000, 20000)), "bomb.png")
    with pytest.raises(ImageError, match="too many pixels"):
        media.load_image(path)


def test_hash_of_a_file_is_of_its_bytes_and_of_a_picture_as_requests_name_it(tmp_path: Path) -> None:
    import hashlib

    from chronoedit.request import image_reference

    image = Image.fromarray(ramp())
    path = saved(tmp_path, image, "a.png")
    assert media.image_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert media.image_sha256(image) == image_reference(image).removeprefix("sha256:")
    assert media.image_sha256(ramp()) == media.image_sha256(image)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".PNG"])
def test_metadata_round_trip(tmp_path: Path, suffix: str) -> None:
    metadata = {
        "version": "0.1.0",
        "request": {"prompt": "größer – 大きく", "seed": 2**62},
        "timings_s": {"total": 1.5},
    }
    path = tmp_path / "new folder" / f"out{suffix}"
    media.save_image(Image.fromarray(ramp()), path, metadata)
    assert media.read_metadata(path) == metadata
    assert abs(np.asarray(media.load_image(path)).astype(int) - ramp()).mean() < 4
    media.save_image(Image.fromarray(ramp()), path)
    assert media.read_metadata(path) is None


def test_metadata_of_others_and_damaged_metadata(tmp_path: Path) -> None:
    assert media.read_metadata(saved(tmp_path, Image.fromarray(ramp()), "plain.jpg")) is None
    from PIL.PngImagePlugin import PngInfo

    for text in ("{", "[1]"):
        info = PngInfo()
        info.add_itxt(media.METADATA_KEY, text)
        with pytest.raises(ImageError, match="entry of"):
            media.read_metadata(saved(tmp_path, Image.fromarray(ramp()), "bad.png", pnginfo=info))


def test_metadata_that_jpeg_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="use .png"):
        media.save_image(Image.fromarray(ramp()), tmp_path / "a.jpg", {"prompt": "x" * 70_000})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(5, 64, 96, 3), (3, 33, 47, 3)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_video_round_trip_in_colour_and_at_odd_sizes(tmp_path: Path, shape: tuple[int, ...], suffix: str) -> None:
    t, h, w, _ = shape
    frames = np.stack([np.roll(ramp(w, h), 3 * k, axis=1) for k in range(t)])
    frames[:, : h // 2] = (210, 40, 30)
    path = tmp_path / f"v{suffix}"
    media.save_video(frames, path, fps=8)
    back = media.read_video(path)
    assert back.shape == (t, h + h % 2, w + w % 2, 3) and back.dtype == np.uint8
    error = back[:, :h, :w].astype(int) - frames
    assert abs(error[:, : h // 2 - 2]).max() <= 6  # flat colour: right matrix and range, or it is off by 10 and more
    assert abs(error).mean() < 8


def test_frames_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="T H W 3 of uint8"):
        media.save_video(np.zeros((2, 16, 16, 3), np.float32), tmp_path / "v.mp4")
    with pytest.raises(ValueError, match="use one of .mp4"):
        media.save_video(np.zeros((2, 16, 16, 3), np.uint8), tmp_path / "v.avi")
    with pytest.raises(ValueError, match="use one of .png"):
        media.save_image(Image.fromarray(ramp()), tmp_path / "v.xyz")


def test_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"nothing like it")
    with pytest.raises(ImageError, match="not a video"):
        media.read_video(tmp_path / "v.mp4")
    with pytest.raises(ImageError, match="there is no file"):
        media.read_video(tmp_path / "none.mp4")


def test_contact_sheet_places_each_picture() -> None:
    red, blue = Image.new("RGB", (64, 48), "red"), Image.new("RGB", (32, 48), "blue")
    plain = media.contact_sheet([[red, blue], [blue]], margin_px=8)
    assert plain.size == (2 * 72 + 8, 2 * 56 + 8)
    assert plain.getpixel((10, 10)) == (255, 0, 0) and plain.getpixel((82, 10)) == (0, 0, 255)
    assert plain.getpixel((10, 70)) == (0, 0, 255) and plain.getpixel((82, 70)) == (255, 255, 255)
    labelled = media.contact_sheet([[red], [blue]], labels=["put the red ball on the box " * 3, ""], columns=["in"])
    assert labelled.height > plain.height and (np.asarray(labelled) < 100).all(-1).any()
    with pytest.raises(ValueError, match="one a row"):
        media.contact_sheet([[red]], labels=["a", "b"])


def test_a_file_is_replaced_only_by_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), media.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    with pytest.raises(KeyboardInterrupt), media.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with media.atomic_path(path) as temporary:
        assert temporary.parent == tmp_path and temporary.suffix == ".txt"
        temporary.write_text("new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_link_keeps_pointing_where_it_did(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    media.write_files({tmp_path / "link.txt": b"new"})
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "real.txt").read_text() == "new"


def test_written_files_have_the_usual_permissions(tmp_path: Path) -> None:
    media.write_files({tmp_path / "ours": b""})
    (tmp_path / "usual").touch()
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    path = tmp_path / "a.png"
    media.save_image(Image.fromarray(ramp()), path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="no space left to write .*a.png.*untouched"):
        media.save_image(Image.new("RGB", SIZE), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_the_operating_system_stops_the_writing(tmp_path: Path) -> None:
    """A limit on file size, as a full quota would: what was there stays, and nothing half-written is left."""
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    script = (
        "import resource, signal, sys, numpy as np\n"
        "from PIL import Image\n"
        "from chronoedit import media\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)\n"
        "media.save_image(Image.fromarray(noise), sys.argv[1])\n"
    )
    assert resource.RLIMIT_FSIZE is not None
    run = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
    assert run.returncode == 1 and "OutputError: no space left" in run.stderr
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_several_files_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot write .*folder"):
        media.write_files({tmp_path / "a": b"new", tmp_path / "folder": b"new"})
    assert (tmp_path / "a").read_text() == "old" and len(list(tmp_path.iterdir())) == 2
    media.write_files({tmp_path / "a": b"new", tmp_path / "b": b"new"})
    assert [path.read_text() for path in (tmp_path / "a", tmp_path / "b")] == ["new", "new"]


def test_check_writable(tmp_path: Path) -> None:
    media.check_writable(tmp_path / "deep" / "er" / "a.png")
    assert not list(tmp_path.iterdir())
    with pytest.raises(OutputError, match="is a folder"):
        media.check_writable(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        media.check_writable(tmp_path / "file" / "a.png")
    if os.path.isdir("/proc/self"):
        with pytest.raises(OutputError, match="cannot write"):
            media.check_writable("/proc/self/a.png")
    with pytest.raises(OutputError, match="cannot be replaced"):
        media.check_writable(os.devnull)


def test_metadata_is_plain_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        media.save_image(Image.fromarray(ramp()), tmp_path / "a.png", {"loss": float("nan")})
    media.save_image(Image.fromarray(ramp()), tmp_path / "a.png", {"a": 1})
    assert json.loads(Image.open(tmp_path / "a.png").info[media.METADATA_KEY]) == {"a": 1}


def test_the_same_frames_give_the_same_video() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (29, 6, 8, 3), np.uint8).repeat(16, 1).repeat(16, 2)
    files = {media.encode_video(frames, Path("x.mp4")) for _ in range(6)}
    assert len(files) == 1
