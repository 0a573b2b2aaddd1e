import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from humanpose.errors import FormatError, HumanPoseError, InputError, LimitError, OutputError
from humanpose.images import IMAGE_SUFFIXES, is_picture, load_image, save_image

# 11 x 7, four corners of different colours on a soft ground.
PICTURE = np.full((7, 11, 3), 90, np.uint8)
PICTURE[:3, :5], PICTURE[:3, 6:], PICTURE[4:, :5] = (250, 10, 10), (10, 240, 10), (10, 10, 230)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def smooth(width: int = 160, height: int = 120) -> Image.Image:
    return Image.fromarray(PICTURE).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "GIF"])
def test_lossless_formats_come_back_exactly(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    got = load_image(encoded(Image.fromarray(PICTURE), kind, **options))
    assert got.dtype == np.uint8 and got.flags.c_contiguous and got.flags.writeable
    assert (got == PICTURE).all()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpeg_is_decoded_in_rgb_order(options: dict[str, object]) -> None:
    picture = smooth()
    got = load_image(encoded(picture, "JPEG", quality=95, **options)).astype(int)
    assert np.abs(got - np.asarray(picture, int)).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied_once(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(smooth(), kind, exif=exif)
    want = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"), int)
    got = load_image(data).astype(int)
    assert got.shape == want.shape
    assert np.abs(got - want).mean() < 1
    if orientation == 6:  # shown turned clockwise: the red corner goes from top left to top right
        assert got.shape == (160, 120, 3)
        assert got[5, -5, 0] > 200 > 100 > got[5, 5, 0]


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 77).reshape(7, 11).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        got = load_image(encoded(Image.fromarray(ramp), kind))
        assert (got == np.rint(ramp / 257).astype(np.uint8)[..., None]).all()
    with pytest.raises(FormatError, match="32-bit grey"):
        load_image(encoded(Image.fromarray(ramp.astype(np.int32) * 100), "TIFF"))
    unit = Image.fromarray((ramp / 65535).astype(np.float32))
    assert load_image(encoded(unit, "TIFF")).max() == 255


def test_grey_palette_bits_and_cmyk() -> None:
    image = Image.fromarray(PICTURE)
    grey = load_image(encoded(image.convert("L"), "PNG"))
    assert (grey == np.asarray(image.convert("L"))[..., None]).all()
    assert (
        load_image(encoded(image.convert("P"), "PNG")) == image.convert("P").convert("RGB")
    ).all()
    assert set(np.unique(load_image(encoded(image.convert("1"), "PNG")))) == {0, 255}
    cmyk = load_image(encoded(smooth().convert("CMYK"), "JPEG", quality=95)).astype(int)
    assert np.abs(cmyk - np.asarray(smooth(), int)).mean() < 3


def test_transparency_lies_over_white() -> None:
    rgba = np.dstack([PICTURE, np.full((7, 11), 255, np.uint8)])
    rgba[0, 0, 3], rgba[0, 1, 3] = 0, 128
    for got in (load_image(encoded(Image.fromarray(rgba), "PNG")), load_image(rgba)):
        assert got[0, 0].tolist() == [255, 255, 255]
        assert np.abs(got[0, 1].astype(int) - [252, 132, 132]).max() <= 1
        assert got[0, 2].tolist() == [250, 10, 10]
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "L").convert("P")
    palette.putpalette([9, 9, 9, 80, 90, 100])
    assert load_image(encoded(palette, "PNG", transparency=0)).tolist() == [
        [[255, 255, 255], [80, 90, 100]]
    ]
    grey = Image.merge("LA", [Image.new("L", (3, 2), 7), Image.new("L", (3, 2), 0)])
    assert (load_image(encoded(grey, "PNG")) == 255).all()


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (load_image(data) == [255, 0, 0]).all()


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [8_001, 10_000, 30_000])
def test_bomb_is_refused_from_its_header(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(side, side))
    assert is_picture(path)
    tracemalloc.start()
    with pytest.raises(LimitError, match=r"bomb\.png .*pixels"):
        load_image(path)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def test_max_pixels_is_the_callers() -> None:
    data = encoded(Image.fromarray(PICTURE), "PNG")
    assert load_image(data, max_pixels=77).shape == (7, 11, 3)
    with pytest.raises(LimitError, match="11 x 7, more than the limit of 76 pixels"):
        load_image(data, max_pixels=76)
    with pytest.raises(LimitError):
        load_image(Image.fromarray(PICTURE), max_pixels=76)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {}),
        ("TIFF", {}),
        ("BMP", {}),
    ],
)
def test_truncated_file_is_an_error(
    tmp_path: Path, kind: str, options: dict[str, object], share: float
) -> None:
    rng = np.random.default_rng(1)
    data = encoded(Image.fromarray(rng.integers(0, 256, (90, 120, 3), np.uint8)), kind, **options)
    path = tmp_path / f"half.{kind.lower()}"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(FormatError, match="half"):
        load_image(path)


def test_what_is_no_picture(tmp_path: Path) -> None:
    text = tmp_path / "notes.jpg"
    text.write_text("hello")
    with pytest.raises(FormatError, match=r"notes\.jpg is not a picture"):
        load_image(text)
    assert not is_picture(text)
    heic = tmp_path / "IMG_1.HEIC"
    heic.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    with pytest.raises(InputError, match=r"IMG_1\.HEIC: HEIC pictures are not supported; convert"):
        load_image(heic)
    with pytest.raises(FormatError, match="empty"):
        load_image(b"")
    with pytest.raises(InputError, match="does not exist"):
        load_image(tmp_path / "absent.jpg")
    with pytest.raises(InputError, match="a picture is a path"):
        load_image(3)  # type: ignore[arg-type]


def test_arrays_of_every_accepted_kind() -> None:
    assert load_image(PICTURE) is PICTURE or np.shares_memory(load_image(PICTURE), PICTURE)
    assert (load_image(PICTURE, channels="bgr") == PICTURE[..., ::-1]).all()
    assert (load_image(PICTURE.astype(np.uint16) * 257) == PICTURE).all()
    for kind in (np.float16, np.float32, np.float64):
        assert np.abs(load_image((PICTURE / 255).astype(kind)).astype(int) - PICTURE).max() <= 1
    assert (load_image(PICTURE[..., 0]) == PICTURE[..., :1]).all()
    assert (load_image(PICTURE[..., :1]) == PICTURE[..., :1]).all()
    bgra = np.dstack([PICTURE, np.full((7, 11), 255, np.uint8)])
    assert (load_image(bgra, channels="bgr") == PICTURE[..., ::-1]).all()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 7, 11), np.uint8), r"uint8\[3, 7, 11\]"),
        (np.zeros((7, 11, 3), np.int64), r"int64\[7, 11, 3\]"),
        (np.zeros((7, 11, 3), bool), "uint8, uint16 or float"),
        (np.full((7, 11, 3), 255.0), r"from 255 to 255; floats must lie in \[0, 1\]"),
        (np.full((7, 11, 3), np.nan), "nan"),
        (np.zeros((0, 11, 3), np.uint8), r"\[0, 11, 3\]"),
    ],
)
def test_other_arrays_are_refused_by_what_they_are(array: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_image(array)
    with pytest.raises(InputError, match="'rgb' or 'bgr', not 'gbr'"):
        load_image(PICTURE, channels="gbr")


def test_saved_picture_comes_back(tmp_path: Path) -> None:
    save_image(tmp_path / "a" / "x.png", PICTURE)
    assert (load_image(tmp_path / "a" / "x.png") == PICTURE).all()
    large = np.asarray(smooth())
    for name in ("x.jpg", "x.JPEG", "x.webp"):
        save_image(tmp_path / name, large)
        assert np.abs(load_image(tmp_path / name).astype(int) - large).mean() < 4
    save_image(tmp_path / "low.jpg", large, quality=5)
    assert (tmp_path / "low.jpg").stat().st_size < (tmp_path / "x.jpg").stat().st_size
    with pytest.raises(OutputError, match=r"x\.tiff: a picture's name ends in"):
        save_image(tmp_path / "x.tiff", PICTURE)


def mutants() -> dict[str, bytes]:
    image, exif = smooth(48, 36), Image.Exif()
    exif[0x0112] = 6
    grey16 = Image.fromarray(np.arange(48 * 36, dtype=np.uint16).reshape(36, 48) * 30)
    rgba = image.convert("RGBA")
    return {
        "jpeg": encoded(image, "JPEG", exif=exif),
        "progressive": encoded(image, "JPEG", progressive=True),
        "cmyk": encoded(image.convert("CMYK"), "JPEG"),
        "png": encoded(image, "PNG"),
        "png16": encoded(grey16, "PNG"),
        "rgba": encoded(rgba, "PNG"),
        "palette": encoded(image.convert("P"), "PNG"),
        "gif": encoded(image, "GIF"),
        "webp": encoded(image, "WEBP"),
        "tiff": encoded(image, "TIFF", compression="tiff_lzw"),
        "bmp": encoded(image, "BMP"),
        "ppm": encoded(image, "PPM"),
    }


@pytest.mark.parametrize("name", mutants())
@settings(max_examples=40, deadline=5000)
@given(
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8)
)
def test_damaged_bytes_end_in_a_picture_or_in_our_error(
    name: str, edits: list[tuple[int, int]]
) -> None:
    data = bytearray(mutants()[name])
    for place, value in edits:
        # Half of the edits go to the header, where they do the most.
        data[place % (64 if place % 2 else len(data))] = value
    try:
        got = load_image(bytes(data), max_pixels=100_000)
    except HumanPoseError as error:
        assert "\n" not in str(error) and "bytes)" in str(error)
    else:
        assert got.ndim == 3 and got.shape[2] == 3 and got.dtype == np.uint8


def test_real_photographs(data: Path) -> None:
    paths = sorted((data / "coco" / "images").iterdir())[:5]
    for path in paths:
        want = np.asarray(Image.open(path).convert("RGB"), int)
        assert path.suffix in IMAGE_SUFFIXES
        assert np.abs(load_image(str(path)).astype(int) - want).mean() < 1
