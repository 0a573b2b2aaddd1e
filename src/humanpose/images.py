"""Load and save pictures: every kind becomes RGB uint8 (H, W, 3).

The header's size is checked before decoding. EXIF orientation is applied, 16 bits are scaled to 8,
transparency is laid over white; a damaged file is an error.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from humanpose.errors import FormatError, HumanPoseError, InputError, LimitError, OutputError
from humanpose.files import atomic_write, file_size, input_error, read_limited
from humanpose.types import U8

T = TypeVar("T")

# Pillow reads some forty formats; the rare ones are where its parsers are least tested.
_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
if find_spec("PIL.AvifImagePlugin"):  # since Pillow 11.3
    _SUFFIXES["AVIF"] = (".avif",)
_FORMATS = tuple(_SUFFIXES)
IMAGE_SUFFIXES = frozenset(suffix for kind in _SUFFIXES.values() for suffix in kind)
_MAX_BYTES = 1 << 29
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_ORIENTATION = 0x0112
_WRITERS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
SAVE_SUFFIXES = frozenset(_WRITERS)

# OpenCV 4.10 knows no RGB flag. Orientation is ours, so that every decoder agrees about it.
_CV2_RGB = getattr(cv2, "IMREAD_COLOR_RGB", None)
_CV2_FLAGS = (cv2.IMREAD_COLOR if _CV2_RGB is None else _CV2_RGB) | cv2.IMREAD_IGNORE_ORIENTATION


def load_image(
    source: str | Path | bytes | Image.Image | NDArray[Any],
    *,
    channels: str = "rgb",
    max_pixels: int = 64_000_000,
) -> U8:
    """Load `source` as RGB uint8 (H, W, 3), upright.

    Args:
        source: path or content of a JPEG, PNG, WebP, GIF (first frame), BMP, TIFF, PPM or AVIF
            file; a PIL picture; or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8,
            uint16 or of floats in [0, 1]. A uint8 RGB array comes back as it is, not copied.
        channels: order of an array's colours, "rgb" or "bgr" (OpenCV's).
        max_pixels: larger pictures are refused from their header. Pillow's own ceiling
            (`Image.MAX_IMAGE_PIXELS`, 179 million) holds besides.

    Raises:
        InputError: no such file, or an array of another kind.
        FormatError: damaged, truncated, or not a picture.
        LimitError: more than `max_pixels`.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, channels)
    if isinstance(source, Image.Image):
        name = str(getattr(source, "filename", "") or "the PIL picture")
        return _guarded(lambda: _from_pillow(source, name, max_pixels), name)
    if isinstance(source, bytes):
        data, name = source, f"the picture ({len(source):,} bytes)"
    elif isinstance(source, (str, Path)):
        data, name = read_limited(source, _MAX_BYTES), str(source)
    else:
        raise InputError(f"a picture is a path, bytes, PIL picture or array, not {type(source)}")
    return _guarded(lambda: _from_bytes(data, name, max_pixels), name)


def is_picture(path: str | Path) -> bool:
    """Return whether file `path` has the header of a picture that `load_image` reads."""
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(file, formats=_FORMATS)
    except Image.DecompressionBombError:
        return True
    except OSError as error:
        if isinstance(error, UnidentifiedImageError):
            return False
        raise input_error(path, error) from error
    except Exception:  # the parsers' own: see `_guarded`
        return False
    return True


def image_size(path: str | Path) -> tuple[int, int]:
    """Return the (width, height) of the upright picture in file `path`, from its header alone.

    Raises:
        InputError: no such file. FormatError: not a picture. LimitError: of absurd size.
    """

    def header() -> tuple[int, int]:
        with Image.open(path, formats=_FORMATS) as picture:
            turned = picture.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
            return picture.size[::-1] if turned else picture.size

    file_size(path)
    return _guarded(header, str(path))


def save_image(path: str | Path, rgb: U8, quality: int = 92) -> None:
    """Write `rgb` (H, W, 3) to `path`, whole or not at all; the suffix says the format.

    Args:
        path: ends in .jpg, .jpeg, .png or .webp.
        rgb: uint8 picture.
        quality: 1 to 100, of JPEG and WebP.

    Raises:
        OutputError: another suffix, or the place cannot be written.
    """
    kind = _WRITERS.get(Path(path).suffix.lower())
    if kind is None:
        raise OutputError(f"cannot write {path}: a picture's name ends in .jpg, .png or .webp")
    content = io.BytesIO()
    try:
        Image.fromarray(np.ascontiguousarray(rgb)).save(content, kind, quality=quality)
    except (ValueError, OSError) as error:  # a side longer than the format can say
        raise OutputError(f"cannot write {path} as {kind}: {error}") from error
    with atomic_write(path) as file:
        file.write(content.getbuffer())


def _guarded(load: Callable[[], T], name: str) -> T:
    """Return `load()`; turn every failure of a parser into an error of this package."""
    try:
        with warnings.catch_warnings():
            # Harmless oddities, and sizes, which are checked here.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            return load()
    except HumanPoseError:
        raise
    except Image.DecompressionBombError as error:
        # Pillow's own ceiling, which comes before the header's size can be asked for.
        raise LimitError(f"{name} has too many pixels to be read safely; scale it down") from error
    except MemoryError as error:
        raise LimitError(f"{name} is too large for this machine's memory") from error
    except Exception as error:
        # Pillow's parsers raise a dozen types on damage (SyntaxError, struct.error, KeyError).
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(f"{name} is damaged: {reason}") from error


def _from_bytes(data: bytes, name: str, max_pixels: int) -> U8:
    if not data:
        raise FormatError(f"{name} is empty (0 bytes)")
    try:
        picture = Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError as error:
        if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS:
            heic = f"{name}: HEIC pictures are not supported; convert it to JPEG"
            raise InputError(heic) from error
        raise FormatError(f"{name} is not a picture ({', '.join(_FORMATS)})") from error
    with picture:
        _check_size(picture, name, max_pixels)
        if picture.format in ("JPEG", "MPO") and picture.mode in ("RGB", "L"):
            rgb = _fast_jpeg(data, picture.size)
            if rgb is not None:
                return _upright(rgb, picture)
        return _from_pillow(picture, name, max_pixels)


def _fast_jpeg(data: bytes, size: tuple[int, int]) -> U8 | None:
    """Decode a complete JPEG by OpenCV; return None where Pillow must do it.

    A file without its end marker is left to Pillow: some versions of OpenCV fill what is missing
    with grey.
    """
    if not data.endswith(b"\xff\xd9"):
        return None
    rgb = cv2.imdecode(np.frombuffer(data, np.uint8), _CV2_FLAGS)
    if rgb is None or rgb.shape != (size[1], size[0], 3):
        return None
    if _CV2_RGB is None:
        cv2.cvtColor(rgb, cv2.COLOR_BGR2RGB, dst=rgb)
    return np.asarray(rgb, np.uint8)


def _check_size(picture: Image.Image, name: str, max_pixels: int) -> None:
    width, height = picture.size
    if width * height > max_pixels:
        limit = f"the limit of {max_pixels:,} pixels"
        raise LimitError(f"{name} is {width} x {height}, more than {limit}")
    if not width * height:
        raise FormatError(f"{name} has no pixels ({width} x {height})")


def _from_pillow(picture: Image.Image, name: str, max_pixels: int) -> U8:
    _check_size(picture, name, max_pixels)
    picture.load()
    # A TIFF is upright after `load`, which also removes its tag; hence the order.
    return _upright(_rgb8(picture, name), picture)


def _rgb8(picture: Image.Image, name: str) -> U8:
    """Convert a loaded picture of any mode to (H, W, 3)."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return _deep_grey(np.array(picture), name)
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        picture = Image.new("RGB", picture.size, "white")
        picture.paste(rgba, (0, 0), rgba)
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _deep_grey(grey: NDArray[Any], name: str) -> U8:
    """Convert grey of more than 8 bits, (H, W), to (H, W, 3) uint8; 65,535 is white."""
    if grey.dtype.kind == "f":
        return _from_array(grey, "rgb", name)
    low, high = int(grey.min()), int(grey.max())
    if low < 0 or high > 65_535:
        raise FormatError(f"{name}: 32-bit grey has no defined white; convert it to 8 or 16 bits")
    return _from_array(grey.astype(np.uint16), "rgb", name)


def _upright(rgb: U8, picture: Image.Image) -> U8:
    """Turn and mirror `rgb` by the EXIF orientation of `picture` (EXIF 2.32, 4.6.4 A)."""
    try:
        orientation = picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data does not make a picture unreadable
        return rgb
    if orientation in (5, 6, 7, 8):
        rgb = rgb.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        rgb = rgb[:, ::-1]
    if orientation in (3, 4, 7, 8):
        rgb = rgb[::-1]
    return np.ascontiguousarray(rgb)


def _from_array(array: NDArray[Any], channels: str, name: str = "the array") -> U8:
    given = f"{name} is {array.dtype}{list(array.shape)}"
    if channels not in ("rgb", "bgr"):
        raise InputError(f"channels is 'rgb' or 'bgr', not {channels!r}")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
        raise InputError(f"{given}; a picture is (H, W), (H, W, 3) or (H, W, 4)")
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):  # also false for NaN
            raise InputError(f"{given} from {low:g} to {high:g}; floats must lie in [0, 1]")
        array = (array * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    elif array.dtype == np.uint16:
        array = ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise InputError(f"{given}; a picture is uint8, uint16 or float in [0, 1]")
    if array.shape[2] == 1:
        return np.ascontiguousarray(np.repeat(array, 3, axis=2))
    colours = array[..., 2::-1] if channels == "bgr" else array[..., :3]
    if array.shape[2] == 4:
        alpha = array[..., 3:].astype(np.uint16)
        over = colours.astype(np.uint16) * alpha + 255 * (255 - alpha) + 127
        colours = (over // 255).astype(np.uint8)
    return np.ascontiguousarray(colours)
