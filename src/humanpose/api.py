"""PoseEstimator: pictures and videos in, people with joints out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from humanpose import files, results
from humanpose.errors import DeviceError, InputError, MissingExtraError
from humanpose.images import load_image
from humanpose.infer import runtime
from humanpose.infer.detector import Detector
from humanpose.infer.hands import HandFinder
from humanpose.infer.options import InferenceOptions, Smoothing, TrackingOptions, described
from humanpose.infer.profile import DETECTOR, HANDS, POSE, SMOOTHING, WAITING, Profile
from humanpose.infer.smooth import smoothed
from humanpose.infer.stream import Source
from humanpose.infer.stream import results as results_of
from humanpose.infer.topdown import TopDown
from humanpose.infer.track import VideoTracker
from humanpose.media.sources import open_source
from humanpose.skeleton import Skeleton
from humanpose.spec import ModelSpec
from humanpose.types import F32, U8, Frame, Person

if TYPE_CHECKING:
    from PIL.Image import Image


Network = tuple[runtime.Runtime, ModelSpec, Path]  # ready to run, what it is, its file


class PoseEstimator:
    """Finds people and their joints; threads may share one, whose networks then take turns.

        >>> estimator = PoseEstimator()
        >>> frame = estimator("photo.jpg")  # doctest: +SKIP
        >>> frame.people[0].joints.shape  # doctest: +SKIP
        (19, 2)

    Args:
        model: pose weights: a built-in name or a file (.onnx; .safetensors with [train]).
        options: how networks run; the defaults if not given.
        profile: records the time of each phase (`infer.profile`).
        changes: fields of `InferenceOptions` that replace those of `options`: detector, device,
            size, tta and so on; `infer/options.py` has the list.

    Raises:
        InputError, FormatError, DeviceError: if a model cannot be had or run as asked.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        options: InferenceOptions | None = None,
        profile: Profile | None = None,
        **changes: Any,
    ) -> None:
        if model is not None:
            changes["model"] = model
        options = options or InferenceOptions()
        options = dataclasses.replace(options, **changes) if changes else options
        self._options, self._profile = options, profile
        self._networks: list[Network] = []
        detector = None
        pose = self._timed(load_model(options.model, options, options.size), POSE)
        if options.detector not in (None, "none"):
            person = self._timed(load_detector(options, pose[1]), DETECTOR)
            detector = Detector(*person, threshold=options.detector_score)
        self.finder = TopDown(*pose, options, detector)
        self._hands: Callable[[Frame], Frame] = lambda frame: frame
        if options.hands is not None:
            hand = load_model(options.hands, options, helper=True)
            self._hands = HandFinder(TopDown(*self._timed(hand, HANDS)))

    @property
    def skeleton(self) -> Skeleton:
        """Meaning of the rows of `Person.joints`."""
        return self.finder.skeleton

    def __call__(
        self, picture: str | Path | bytes | Image | np.ndarray[Any, Any], *, channels: str = "rgb"
    ) -> Frame:
        """Find the people in one picture.

        Args:
            picture: path, file content, PIL picture, or an array (H, W, 3) uint8.
            channels: "rgb", or "bgr" for an array that OpenCV read.

        Raises:
            InputError, FormatError, LimitError: if it is not a readable picture.
        """
        image = load_image(picture, channels=channels)
        name = Path(picture).name if isinstance(picture, str | Path) else ""
        return self.process(Frame(image, name=name))

    def stream(
        self,
        source: str | Path,
        *,
        track: bool = True,
        smoothing: str | Smoothing = "auto",
        detect_every: int = 1,
    ) -> Iterator[Frame]:
        """Yield the frames of what moves with their people, in order, at constant memory.

        Reading runs ahead in a thread of its own. Times are the container's; of a camera or stream
        come the newest frames, and what there was no time for is left out.

        Args:
            source: a video file, or what else `media.sources.open_source` knows.
            track: number the people.
            smoothing: "none", "kalman", "one-euro", "rts" (each frame comes a second late) or
                settings of `infer.options`; "auto" = kalman for live sources, none for files.
            detect_every: frames from one call of the detector to the next; between them
                boxes come from the last pose.
        """
        following = TrackingOptions(track, smoothing, detect_every)
        with open_source(source) as video, closing(self.follow(video, following)) as frames:
            yield from frames

    def follow(
        self, source: Source, following: TrackingOptions = TrackingOptions()
    ) -> Generator[Frame, None, None]:
        """Yield frames of `source` with their people: of a file all, of a camera the newest."""
        work = self.follower(following.detect_every) if following.track else self.process
        with closing(results_of(source, work, self._profile)) as frames:
            method, profile = following.method(live=source.live), self._profile
            if profile is None or method is None:
                yield from smoothed(frames, method)
            else:
                due = profile.timed(frames, WAITING)
                yield from profile.timed(smoothed(due, method), SMOOTHING)

    def follower(self, detect_every: int = 1) -> Callable[[Frame], Frame]:
        """Return a `process` for frames one after another: people keep their numbers."""
        follower = VideoTracker(self.finder, every=detect_every)
        return lambda frame: self._hands(follower(frame))

    def process(self, frame: Frame) -> Frame:
        """Return `frame` with the people found in it."""
        return self._hands(dataclasses.replace(frame, people=self.finder.find(frame.image)))

    def estimate(self, rgb: U8, boxes: F32) -> tuple[Person, ...]:
        """Find one Person per given box, same order.

        Args:
            rgb: (H, W, 3) uint8.
            boxes: (N, 4) tight boxes x, y, width, height, picture pixels.
        """
        return self.finder.estimate(load_image(rgb), boxes)

    def header(self, source: str, smoothing: Smoothing | None = None) -> dict[str, Any]:
        """Return the first line of a result record about `source`."""
        fields = dataclasses.asdict(self._options)
        options = {k: str(v) if isinstance(v, Path) else v for k, v in fields.items()}
        return results.header(self.skeleton, self._models, source, described(smoothing), options)

    @functools.cached_property
    def _models(self) -> list[dict[str, Any]]:
        """Describe the networks for a record; hashing their files takes a while."""
        return [
            {
                "name": spec.name,
                "sha256": files.sha256(path),
                "runtime": loaded.name,
                "precision": loaded.precision,
                "input": list(spec.input),
                "licence": spec.licences,
            }
            for loaded, spec, path in self._networks
        ]

    def _timed(self, network: Network, phase: str) -> tuple[runtime.Runtime, ModelSpec]:
        """Note `network` for `header`; return it, with its runs counted as `phase` if profiled."""
        self._networks.append(network)
        loaded, spec, _ = network
        return loaded if self._profile is None else self._profile.runtime(loaded, phase), spec


def load_model(
    model: str | Path,
    options: InferenceOptions = InferenceOptions(),
    size: runtime.Size = None,
    *,
    helper: bool = False,
) -> Network:
    """Load a network by built-in name or file (.onnx; .safetensors with [train]), ready to run.

    Args:
        model: name or file.
        options: runtime, precision, device, threads and cache of them.
        size: height of the input of a pose network or of CPM's person network, pixels (other
            detectors keep theirs), or its width and height; None = the network's own.
        helper: it works beside the network that `options` are about: "int8" means "auto" where
            it has no INT8 form.
    """
    path = runtime.chosen(runtime.weights_path(str(model)), options)
    if helper and options.precision == "int8" and not runtime.is_int8(path):
        options = dataclasses.replace(options, precision="auto")
    load = _load_torch if path.suffix == ".safetensors" else runtime.load
    loaded, spec = load(path, options, size)
    return loaded, runtime.with_preset(str(model), spec), path


def load_detector(options: InferenceOptions, beside: ModelSpec) -> Network:
    """Load the detector of `options`, ready to run `beside` their pose network."""
    side = options.detector_size
    if side is None and options.detector == "person":
        side = beside.detector_size or None
    size = options.size if side is None else (side, side)
    return load_model(str(options.detector), options, size, helper=True)


def _load_torch(
    path: Path, options: InferenceOptions, size: runtime.Size
) -> tuple[runtime.Runtime, ModelSpec]:
    try:
        import torch

        from humanpose.checkpoints.store import load_net
        from humanpose.nets.torch_runtime import TorchRuntime
    except ImportError as error:
        raise MissingExtraError("torch", "train") from error
    if options.runtime != "auto":
        raise InputError(
            f"runtime {options.runtime}: torch runs {path.name}; humanpose export makes an ONNX "
            "file of it"
        )
    if options.precision == "int8":
        raise InputError(f"precision int8: {path.name} has to be quantised, by humanpose export")
    if options.device != "cpu" and not (options.device == "cuda" and torch.cuda.is_available()):
        raise DeviceError(f"device {options.device!r}: torch, which runs {path.name}, sees none")
    if options.threads:
        torch.set_num_threads(options.threads)
    net, spec = load_net(path)
    precision = "float32" if options.precision == "auto" else options.precision
    loaded = TorchRuntime(net.to(options.device), spec, precision=precision)
    return loaded, runtime.sized(spec, size, path)
