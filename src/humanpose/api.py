"""PoseEstimator: pictures and videos in, people with joints out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from humanpose import files, results
from humanpose.errors import DeviceError, InputError, MissingExtraError
from humanpose.geometry import box_of_picture
from humanpose.images import load_image
from humanpose.infer import catalog, runtime, smooth
from humanpose.infer.detector import Detector
from humanpose.infer.hands import HandFinder
from humanpose.infer.profile import SMOOTHING, TRACKING, WAITING, Profile, phase, timed
from humanpose.infer.smooth import Smoothing
from humanpose.infer.stream import Source
from humanpose.infer.stream import results as results_of
from humanpose.infer.topdown import Estimator
from humanpose.infer.track import TrackingOptions, VideoTracker
from humanpose.infer.tta import Procedure
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
        model: built-in pose weights by name, or a file (.onnx; .safetensors with [train]).
        person: likewise for the detector; None = one person who fills the picture.
        runtime: "openvino", "onnxruntime" or "auto".
        precision: "float32", "bf16", "int8" or "auto" (INT8 where the network comes with it and
            the CPU is x86-64, else bf16 where the CPU computes in it).
        device: "cpu", or what the runtime offers.
        threads: of one network call; None = all physical cores.
        cache: folder of compiled models; None = the user's cache folder, "" = none.
        hands: a hand network, by file; its 21 joints of every hand go to `Frame.hands`.
        person_score: least score of a detected person; None = the detector's own.
        max_people: keep at most this many people of a picture, best first.
        size: height of the pose network's input, pixels, and of a CPM person network's (the box
            size); None = the network's own.
        person_size: side of the square that the person network sees the picture in, pixels; None =
            its own, but 224 beside the built-in `fast`.
        flip: average with the mirrored crop: more accurate, twice the time.
        scales, crop, decode, compat: see `infer.tta.Procedure`. `crop` defaults to
            "picture-height" where the person network gives places without sizes (CPM's).
        keep_maps: give every person the heat maps of all stages the network file has.
        second_look: see `infer.tta.Procedure`.
        profile: told where the time goes (`infer.profile`).

    Raises:
        InputError, FormatError, DeviceError: if a model cannot be had or run as asked.
    """

    def __init__(
        self,
        model: str | Path = "balanced",
        *,
        person: str | Path | None = "person",
        runtime: str = "auto",
        precision: str = "auto",
        device: str = "cpu",
        threads: int | None = None,
        cache: str | None = None,
        person_score: float | None = None,
        max_people: int | None = None,
        size: int | None = None,
        person_size: int | None = None,
        flip: bool = False,
        scales: str = "",
        crop: str = "",
        decode: str = "",
        compat: str = "",
        keep_maps: bool = False,
        second_look: float | None = None,
        hands: str | Path | None = None,
        profile: Profile | None = None,
    ) -> None:
        settings = _settings(runtime, precision, device, threads, cache)
        self._profile = profile
        self._models: list[dict[str, Any]] = []
        loaded, spec = self._noted(load_model(model, settings, size))
        self._detector = None
        if person is not None:
            sizes = {"size": size, "person_size": person_size}
            finder, found = self._noted(load_person(person, settings, beside=model, **sizes))
            self._detector = Detector(finder, found, threshold=person_score, profile=profile)
            if found.decode == "peaks":
                crop = crop or "picture-height"
        procedure = Procedure(flip, scales, crop, decode, keep_maps, compat, second_look)
        self._estimator = Estimator(loaded, spec, procedure, profile)
        self._hands = None
        if hands is not None:
            hand_net = self._noted(load_model(hands, settings, helper=True))
            self._hands = HandFinder(Estimator(*hand_net, profile=profile))
        self._max_people = max_people

    @property
    def skeleton(self) -> Skeleton:
        """Meaning of the rows of `Person.joints`."""
        return self._estimator.spec.skeleton

    def __call__(
        self, picture: str | Path | bytes | Image | np.ndarray[Any, Any], *, channels: str = "rgb"
    ) -> Frame:
        """People in one picture.

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
        """Frames of what moves with their people, in order; constant memory.

        Reading runs ahead in a thread of its own. Times are the container's; of a camera or stream
        come the newest frames, and what there was no time for is left out.

        Args:
            source: a video file, or what else `media.sources.open_source` knows.
            track: number the people.
            smoothing: "none", "kalman", "one-euro", "rts" (each frame comes a second late) or
                settings of `infer.smooth`; "auto" = kalman for live sources, none for files.
            detect_every: frames from one call of the person network to the next; between them
                boxes come from the last pose.
        """
        following = TrackingOptions(track, smoothing, detect_every)
        with open_source(source) as video, closing(self.follow(video, following)) as frames:
            yield from frames

    def follow(
        self, source: Source, following: TrackingOptions = TrackingOptions()
    ) -> Generator[Frame, None, None]:
        """The frames of `source` with their people: of a file all, of a camera the newest."""
        work = self.follower(following.detect_every) if following.track else self.process
        with closing(results_of(source, work)) as frames:
            method = following.method(live=source.live)
            if method is None:
                yield from frames
            else:
                due = timed(frames, self._profile, WAITING)
                yield from timed(smooth.smoothed(due, method), self._profile, SMOOTHING)

    def follower(self, detect_every: int = 1) -> Callable[[Frame], Frame]:
        """Like `process`, for frames one after another: people keep their numbers."""
        follower = VideoTracker(
            self._detector, self._estimator, every=detect_every, max_people=self._max_people
        )

        def process(frame: Frame) -> Frame:
            with phase(self._profile, TRACKING):  # what is not of the phases inside it
                frame = follower(frame)
            return self._with_hands(frame)

        return process

    def process(self, frame: Frame) -> Frame:
        """`frame` with the people found in it."""
        boxes, scores = self._boxes(frame.image)
        people = self._estimator.estimate(frame.image, boxes, scores)
        return self._with_hands(dataclasses.replace(frame, people=people))

    def _with_hands(self, frame: Frame) -> Frame:
        return frame if self._hands is None else self._hands(frame)

    def estimate(self, rgb: U8, boxes: F32) -> tuple[Person, ...]:
        """One Person per given box, same order.

        Args:
            rgb: (H, W, 3) uint8.
            boxes: (N, 4) tight boxes x, y, width, height, picture pixels.
        """
        return self._estimator.estimate(load_image(rgb), boxes)

    def header(self, source: str, smoothing: Smoothing | None = None) -> dict[str, Any]:
        """First line of a result record about `source`."""
        return results.header(self.skeleton, self._models, source, smooth.described(smoothing))

    def _boxes(self, image: U8) -> tuple[F32, F32 | None]:
        if self._detector is None:
            return box_of_picture(image), None
        boxes, scores = self._detector.detect(image)
        return boxes[: self._max_people], scores[: self._max_people]

    def _noted(self, network: Network) -> tuple[runtime.Runtime, ModelSpec]:
        """A network, after a note about it for `header`."""
        loaded, spec, path = network
        self._models.append(
            {
                "name": spec.name,
                "sha256": files.sha256(path),
                "runtime": loaded.name,
                "precision": loaded.precision,
                "input": list(spec.input),
            }
        )
        return loaded, spec


def load_model(
    model: str | Path,
    settings: runtime.Settings,
    size: runtime.Size = None,
    *,
    helper: bool = False,
) -> Network:
    """A network by built-in name or file (.onnx; .safetensors with [train]), ready to run.

    Args:
        model: name or file.
        settings: where and how to run.
        size: height of the input of a pose network or of CPM's person network, pixels (other
            detectors keep theirs), or its width and height; None = the network's own.
        helper: it works beside the network that `settings` are about: "int8" means "auto" where
            it has no INT8 form.
    """
    path = runtime.chosen(catalog.weights_path(str(model)), settings)
    if helper and settings.precision == "int8" and not runtime.is_int8(path):
        settings = dataclasses.replace(settings, precision="auto")
    load = _load_torch if path.suffix == ".safetensors" else runtime.load
    loaded, spec = load(path, settings, size)
    own = catalog.SECOND_LOOK.get(str(model), spec.second_look)
    return loaded, dataclasses.replace(spec, second_look=own), path


def load_person(
    person: str | Path,
    settings: runtime.Settings,
    *,
    beside: str | Path,
    size: int | None = None,
    person_size: int | None = None,
) -> Network:
    """A person network, ready to run.

    Args:
        person: name or file.
        settings: of the pose network; "int8" means "auto" where this one has no such form.
        beside: the pose network, name or file.
        size: as of `PoseEstimator`.
        person_size: likewise.
    """
    if person_size is None and person == "person":
        person_size = catalog.PERSON_SIZES.get(str(beside))
    wanted = size if person_size is None else (person_size, person_size)
    return load_model(person, settings, wanted, helper=True)


def _settings(
    backend: str, precision: str, device: str, threads: int | None, cache: str | None
) -> runtime.Settings:
    if threads is not None and threads < 1:
        raise InputError(f"threads must be at least 1, not {threads}")
    return runtime.Settings(backend, precision, device, threads, cache)


def _load_torch(
    path: Path, settings: runtime.Settings, size: runtime.Size
) -> tuple[runtime.Runtime, ModelSpec]:
    try:
        import torch

        from humanpose.checkpoints.store import load_net
        from humanpose.nets.torch_runtime import TorchRuntime
    except ImportError as error:
        raise MissingExtraError("torch", "train") from error
    runtime.check(settings)
    if settings.backend != "auto":
        raise InputError(
            f"runtime {settings.backend}: torch runs {path.name}; humanpose export makes an ONNX "
            "file of it"
        )
    if settings.precision == "int8":
        raise InputError(f"precision int8: {path.name} has to be quantised, by humanpose export")
    if settings.device != "cpu" and not (settings.device == "cuda" and torch.cuda.is_available()):
        raise DeviceError(f"device {settings.device!r}: torch, which runs {path.name}, sees none")
    if settings.threads:
        torch.set_num_threads(settings.threads)
    net, spec = load_net(path)
    precision = "float32" if settings.precision == "auto" else settings.precision
    loaded = TorchRuntime(net.to(settings.device), spec, precision=precision)
    return loaded, runtime.sized(spec, size, path)
