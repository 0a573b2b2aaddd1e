"""Networks by name or file, each behind one call: on OpenVINO (default) or ONNX Runtime."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from humanpose.errors import DeviceError, FormatError, InputError, MissingExtraError
from humanpose.infer.options import InferenceOptions
from humanpose.spec import METADATA_KEY, ModelSpec
from humanpose.types import F32, U8

Size = tuple[int, int] | int | None

FOLDER = Path(__file__).resolve().parent.parent / "weights"
# Name -> the weights that it applies, and how: `ModelSpec.tta`.
PRESETS = {"accurate": ("balanced", "flip,upright=60")}

_X86 = platform.machine().lower() in ("x86_64", "amd64")
_FIXED = 2  # largest batch that a network is compiled for, see _OpenVino
_LARGEST_SIDE = 4096  # beyond it a slip of the finger costs gigabytes


class Runtime(Protocol):
    """A network that takes crops and gives named maps.

    `precision` is what it computes in; "int8" for a file that was exported so.
    """

    name: str
    precision: str

    def run(self, crops: U8) -> dict[str, F32]:
        """Return the outputs of RGB crops (N, H, W, 3) uint8."""
        ...


def installed() -> dict[str, Path]:
    """Return name -> path of every network that came with the package, in float32; presets too."""
    files = (path for path in sorted(FOLDER.glob("*.onnx")) if "." not in path.stem)
    found = {path.stem: path for path in files}
    presets = {name: found[weights] for name, (weights, _) in PRESETS.items() if weights in found}
    return dict(sorted((found | presets).items()))


def weights_path(name: str) -> Path:
    """Return the path of built-in weights, or of a file of one's own.

    Raises:
        InputError: if `name` is neither.
    """
    here = installed()
    if name in here:
        return here[name]
    if Path(name).is_file():
        return Path(name)
    known = ", ".join(here) or "none"
    raise InputError(f"model {name!r}: neither a file nor one of the built-in weights ({known})")


def with_preset(name: str, spec: ModelSpec) -> ModelSpec:
    """Return `spec`, of the weights at `weights_path(name)`, as the preset `name` changes it."""
    return replace(spec, name=name, tta=PRESETS[name][1]) if name in PRESETS else spec


def load(
    path: Path, options: InferenceOptions = InferenceOptions(), size: Size = None
) -> tuple[Runtime, ModelSpec]:
    """Load an ONNX file made by `humanpose export`, to run at `spec.input`.

    Args:
        path: of the file.
        options: runtime, precision, device, threads and cache of them.
        size: (width, height) of the input, or a height alone, to which the width follows;
            None = what the spec says. A network that sees the whole picture at one height
            (crop "picture-height") takes any width.

    Raises:
        InputError: if there is no such file.
        FormatError: if it is damaged or carries no ModelSpec.
        DeviceError: if the device or the precision is not here.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such model file")
    if options.runtime == "onnxruntime":
        return _load_onnxruntime(path, options, size)
    return _load_openvino(path, options, size)


def chosen(path: Path, options: InferenceOptions) -> Path:
    """Return which form of a network to `load`: NAME.onnx, or NAME.int8.onnx beside it.

    "int8" asks for the second. So does "auto" for OpenVINO on an x86-64 CPU, where it was measured
    to gain. Of another file than NAME.onnx there is one form only: itself.
    """
    if path.suffix != ".onnx":
        return path
    small = path.with_name(f"{path.stem}.int8.onnx")
    fast = options.runtime != "onnxruntime" and options.device == "cpu" and _X86
    wanted = options.precision == "int8" or (options.precision == "auto" and fast)
    return small if wanted and small.is_file() else path


def is_int8(path: Path) -> bool:
    """Return whether a network's file is its INT8 form."""
    return path.suffix == ".onnx" and read_spec(path).precision == "int8"


def read_spec(path: Path) -> ModelSpec:
    """Read the description inside an ONNX file, without loading the network to run it."""
    return _read_openvino(path)[1]


def cache_folder(options: InferenceOptions) -> Path | None:
    """Return the folder of compiled models, or None without a cache."""
    if options.cache == "":
        return None
    if options.cache is not None:
        folder = Path(options.cache)
    else:
        import platformdirs

        folder = Path(platformdirs.user_cache_dir("humanpose"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a read-only home is no error: the start is only slower
        return None
    return folder if os.access(folder, os.W_OK) else None


def sized(spec: ModelSpec, size: Size, path: Path) -> ModelSpec:
    """Return `spec` for an input of `size`, which may be a height alone.

    Raises:
        InputError: naming `path`, if the network cannot take that size.
    """
    step = spec.multiple_of
    if size is None:
        return spec
    if isinstance(size, int):
        if spec.decode == "boxes":  # a box size is CPM's affair
            return spec
        size = (max(step, round(spec.input[0] * size / spec.input[1] / step) * step), size)
    if min(size) < step or max(size) > _LARGEST_SIDE or any(side % step for side in size):
        raise InputError(
            f"{path.name}: input size {size[0]}x{size[1]} must be multiples of {step}, up to "
            f"{_LARGEST_SIDE}"
        )
    return replace(spec, input=size)


@dataclass(slots=True, eq=False)
class _OpenVino:
    """Compiled for the shape of its input when a batch of that shape first comes.

    One crop, or one and its mirror image, is the usual case, and a network of fixed shape then
    takes a tenth to a quarter less than one that takes any batch; more crops share one that does.
    So do all widths of a network that sees the whole picture at one height.
    """

    compiled: Callable[[tuple[int, ...]], Any]
    outputs: list[str]
    precision: str
    any_width: bool
    name: str = "openvino"
    calls: dict[tuple[int, ...], _Call] = field(default_factory=dict)
    preparing: threading.Lock = field(default_factory=threading.Lock)  # shapes share one model

    def run(self, crops: U8) -> dict[str, F32]:
        found = self.ready(*crops.shape[:3]).run(crops)
        return dict(zip(self.outputs, found, strict=True))

    def ready(self, count: int, height: int, width: int) -> _Call:
        """Return the call for `count` crops of that size."""
        shape = (count if count <= _FIXED else -1, height, -1 if self.any_width else width, 3)
        with self.preparing:
            if shape not in self.calls:
                self.calls[shape] = _Call(self.compiled(shape))
            return self.calls[shape]


class _Call:
    """A compiled network, one call at a time; one of fixed shape has memory of its own.

    After a network has run nothing is in the processor's caches, and to make a tensor of the crops
    and ask for those of the outputs takes 0.1 ms, twenty times as long as in a loop.
    """

    def __init__(self, compiled: Any) -> None:
        import openvino as ov

        self._request = compiled.create_infer_request()
        self._busy = threading.Lock()
        self._into: Any = None
        self._found: list[Any] = []
        ports = [compiled.input(0), *compiled.outputs]
        if all(port.partial_shape.is_static for port in ports):
            into, *found = (ov.Tensor(port.element_type, port.shape) for port in ports)
            self._request.set_input_tensor(into)
            for i, tensor in enumerate(found):
                self._request.set_output_tensor(i, tensor)
            self._into, self._found = into.data, [tensor.data for tensor in found]

    def run(self, crops: U8) -> list[F32]:
        """Return the outputs of `crops`, in their order."""
        import openvino as ov

        with self._busy:
            if self._into is None:
                crops = np.ascontiguousarray(crops)
                self._request.set_input_tensor(ov.Tensor(crops, shared_memory=True))
            else:
                np.copyto(self._into, crops)
            # Not infer(): it collects the outputs in a dictionary, 0.25 ms' work.
            self._request.start_async()
            self._request.wait()
            found = self._found or [tensor.data for tensor in self._request.output_tensors]
            # Copies: the memory is overwritten by the next call.
            return [np.array(each, np.float32) for each in found]


def _load_openvino(path: Path, options: InferenceOptions, size: Size) -> tuple[Runtime, ModelSpec]:
    import openvino as ov

    core = ov.Core()
    device = options.device.upper()
    if device.split(".")[0] not in {name.split(".")[0] for name in core.available_devices}:
        there = ", ".join(name.lower() for name in core.available_devices)
        raise DeviceError(f"device {options.device!r} is not here; OpenVINO sees: {there}")
    model, spec = _read_openvino(path)
    # Compiling may add the names of tensors it folded into an output: take them before.
    names = [output.get_any_name() for output in model.outputs]
    spec = sized(spec, size, path)
    precision = _openvino_precision(core, device, options.precision)
    label = _of_file(path, spec, options.precision, precision)
    config: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bf16": "bf16"}[precision],
    }
    if device == "CPU" and options.threads:
        config["INFERENCE_NUM_THREADS"] = options.threads
    folder = cache_folder(options)
    if folder is not None:
        config["CACHE_DIR"] = str(folder)

    def compiled(shape: tuple[int, ...]) -> Any:
        try:
            model.reshape(list(shape))
            return core.compile_model(model, device, config)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise DeviceError(
                f"{path.name}: OpenVINO cannot run it on {device} ({reason})"
            ) from error

    loaded = _OpenVino(compiled, names, label, spec.crop == "picture-height")
    if spec.crop != "whole":  # whose shape follows the picture
        loaded.ready(1, spec.input[1], spec.input[0])
    return loaded, spec


def _read_openvino(path: Path) -> tuple[Any, ModelSpec]:
    import openvino as ov

    try:
        model = ov.Core().read_model(path)
        text = model.get_rt_info(["framework", METADATA_KEY]).astype(str)
    except RuntimeError as error:
        raise _unreadable(path) from error
    return model, ModelSpec.from_json(text, origin=str(path))


def _unreadable(path: Path) -> FormatError:
    return FormatError(
        f"{path}: damaged, or not a model made by humanpose export, or without the file beside it "
        "that holds its weights"
    )


def _openvino_precision(core: Any, device: str, wanted: str) -> str:
    has_bf16 = "BF16" in core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    if wanted == "bf16" and not has_bf16:
        raise DeviceError(f"precision bf16: {device} does not compute in it; use float32 or auto")
    if wanted in ("auto", "int8"):
        return "bf16" if has_bf16 else "float32"
    return wanted


def _of_file(path: Path, spec: ModelSpec, wanted: str, precision: str) -> str:
    """Return the precision label: "int8" of a quantised file, else `precision`.

    Raises:
        InputError: INT8 is wanted of a file that is not quantised.
    """
    if spec.precision == "int8":
        return "int8"
    if wanted == "int8":
        raise InputError(
            f"precision int8: {path.name} is not quantised; humanpose export --precision int8 "
            f"writes {path.stem}.int8.onnx, which belongs beside it"
        )
    return precision


class _OnnxRuntime:
    name = "onnxruntime"

    def __init__(self, session: Any, precision: str) -> None:
        self._session = session
        self.precision = precision
        self._input = session.get_inputs()[0].name
        self._names = [output.name for output in session.get_outputs()]

    def run(self, crops: U8) -> dict[str, F32]:
        found = self._session.run(self._names, {self._input: np.ascontiguousarray(crops)})
        return dict(zip(self._names, found, strict=True))


def _load_onnxruntime(
    path: Path, options: InferenceOptions, size: Size
) -> tuple[Runtime, ModelSpec]:
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnxruntime") from error
    if options.precision == "bf16":
        raise DeviceError("precision bf16: ONNX Runtime computes in float32; use openvino or auto")
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(options.device)
    if provider not in ort.get_available_providers():
        raise DeviceError(f"device {options.device!r}: ONNX Runtime does not offer it here")
    session_options = ort.SessionOptions()
    session_options.log_severity_level = 3
    if options.threads:
        session_options.intra_op_num_threads = options.threads
    try:
        session = ort.InferenceSession(str(path), session_options, providers=[provider])
        text = session.get_modelmeta().custom_metadata_map[METADATA_KEY]
    except Exception as error:  # ONNX Runtime raises a dozen types of its own
        raise _unreadable(path) from error
    spec = sized(ModelSpec.from_json(text, origin=str(path)), size, path)
    width = session.get_inputs()[0].shape[2]
    if isinstance(width, int) and width != spec.input[0]:
        raise InputError(f"{path.name}: another input size needs the openvino runtime")
    return _OnnxRuntime(session, _of_file(path, spec, options.precision, "float32")), spec
