"""humanpose predict SOURCE..."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from humanpose.errors import EXIT_SKIPPED


def predict(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Pictures, folders, globs, videos; a camera (0), rtsp:// or http(s)://, "
            "ros:/TOPIC, a ROS recording, numbered pictures (FOLDER/%05d.jpg).",
        ),
    ],
    save: Annotated[
        str | None,
        typer.Option(
            metavar="KINDS",
            help="Comma-separated: image, video, json (COCO's shape), jsonl, csv, coco (bare "
            "results), openpose, trc, heatmaps. Without it: the annotated picture or video, and "
            "json.",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the results.")
    ] = Path("humanpose-out"),
    force: Annotated[bool, typer.Option("--force", help="Replace existing results.")] = False,
    model: Annotated[
        str, typer.Option(help="Pose weights: a built-in name or a file.")
    ] = "balanced",
    detector: Annotated[
        str,
        typer.Option(
            help="Detector weights: a built-in name, a file, or 'none' (one person fills it)."
        ),
    ] = "person",
    hands: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Hand weights: also find 21 joints of every hand."),
    ] = None,
    runtime: Annotated[str, typer.Option(help="auto, openvino or onnxruntime.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32, bf16 or int8.")] = "auto",
    device: Annotated[
        str, typer.Option(help="cpu, or what the runtime offers: gpu, npu, cuda.")
    ] = "cpu",
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="CPU threads of a network call; physical cores if not given."),
    ] = None,
    detector_score: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Least score of a person; the model's own if not given."),
    ] = None,
    min_score: Annotated[
        float,
        typer.Option(min=0, max=1, help="Draw joints at or above this score; results keep all."),
    ] = 0.3,
    view: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How results are drawn: boxes, skeleton, heatmaps, stages or side-by-side.",
        ),
    ] = "boxes",
    legend: Annotated[
        bool, typer.Option("--legend", help="Draw which colour is which side of the body.")
    ] = False,
    max_people: Annotated[
        int | None,
        typer.Option(min=1, help="Keep at most this many people of a picture, best first."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=8, help="Height of the pose network's input (CPM's box size); its own if not given."
        ),
    ] = None,
    detector_size: Annotated[
        int | None,
        typer.Option(
            min=8,
            help="Side of the square that the detector sees the picture in; its own if not "
            "given, but 224 beside --model fast.",
        ),
    ] = None,
    tta: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Test-time augmentation: flip, scales=0.8:1:1.25 (or benchmark, demo), "
            "upright=DEGREES, comma-separated, or none. Default: the network's own.",
        ),
    ] = None,
    crop: Annotated[
        str,
        typer.Option(
            metavar="RULE",
            help="Scale of a crop: box, or picture-height (the CPM release's). Default: the "
            "network's; picture-height with CPM's detector, which knows no sizes.",
        ),
    ] = "",
    decode: Annotated[
        str,
        typer.Option(
            metavar="RULE", help="argmax, quarter or dark; the network's own if not given."
        ),
    ] = "",
    compat: Annotated[
        str,
        typer.Option(
            help="matlab: sum maps at the picture's size, whole pixels; hrnet: its shifted flip."
        ),
    ] = "",
    cache: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder of compiled models; '' turns it off.")
    ] = None,
    as_video: Annotated[
        bool, typer.Option("--as-video", help="The pictures of a folder or glob are one video.")
    ] = False,
    rate: Annotated[
        float | None, typer.Option(min=0.01, help="Frames/s of numbered pictures; 25 if not given.")
    ] = None,
    topic: Annotated[
        str | None, typer.Option(help="Topic of a ROS recording, where several have pictures.")
    ] = None,
    retries: Annotated[
        int | None,
        typer.Option(min=0, help="Attempts to find a lost camera again; endless if not given."),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help="End a video or camera after this many frames.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="End a video or camera after this time.")
    ] = None,
    track: Annotated[
        bool, typer.Option("--track/--no-track", help="Number the people of a video.")
    ] = True,
    smooth: Annotated[
        str,
        typer.Option(
            metavar="METHOD",
            help="Steady the joints: none, kalman, one-euro, rts (best, files). If not given: "
            "kalman for cameras and streams, none for files.",
        ),
    ] = "auto",
    detect_every: Annotated[
        int,
        typer.Option(
            min=1,
            help="Look for people every so many frames; their last pose says where between.",
        ),
    ] = 1,
    show: Annotated[
        bool, typer.Option("--show", help="Open the first annotated result when done.")
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Print at the end where the time went.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")] = False,
) -> None:
    """Find people and their joints in pictures and videos.

    Results go to humanpose-out/ (change with -o). A file that cannot be read is skipped, listed
    at the end, and makes the exit code 3. Ctrl-C ends early, with every result file complete.
    """
    from humanpose.api import PoseEstimator
    from humanpose.cli import prediction
    from humanpose.draw import WITH_MAPS, DrawStyle
    from humanpose.infer.profile import Profile
    from humanpose.infer.track import TrackingOptions

    reading = prediction.Reading(as_video, rate, topic, retries, frames, seconds)
    jobs = prediction.plan(
        sources,
        save,
        output,
        look=DrawStyle(view, min_score, legend),
        force=force,
        reading=reading,
        following=TrackingOptions(track, smooth, detect_every),
    )
    counted = Profile() if profile else None
    estimator = PoseEstimator(
        model,
        detector=detector,
        runtime=runtime,
        precision=precision,
        device=device,
        threads=threads,
        cache=cache,
        detector_score=detector_score,
        max_people=max_people,
        size=size,
        detector_size=detector_size,
        tta=tta,
        crop=crop,
        decode=decode,
        compat=compat,
        keep_maps="heatmaps" in (save or "") or view in WITH_MAPS,
        hands=hands,
        profile=counted,
    )
    outcome = prediction.run(jobs, estimator, quiet=quiet, profile=counted)
    if not quiet:
        typer.echo(outcome.summary())
    if counted:
        typer.echo(counted.table(outcome.pictures + outcome.frames))
    for line in outcome.problems:
        typer.echo(line, err=True)
    if show and outcome.drawn:
        typer.launch(str(outcome.drawn[0]))
    if outcome.signal:
        raise typer.Exit(128 + outcome.signal)
    if outcome.problems:
        raise typer.Exit(EXIT_SKIPPED)
