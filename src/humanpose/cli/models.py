"""humanpose models, humanpose info"""

from __future__ import annotations

import typer


def models() -> None:
    """List the networks inside the package, with licence and scores."""
    from humanpose.infer.options import InferenceOptions
    from humanpose.infer.runtime import PRESETS, chosen, installed, read_spec

    for name, path in installed().items():
        if preset := PRESETS.get(name):
            typer.echo(f"{name}: {preset[0]} with --tta {preset[1]}")
            continue
        spec = read_spec(path)
        size = path.stat().st_size / 1e6
        width, height = spec.input
        typer.echo(f"{name}: {spec.task}, net {spec.net}, input {width}x{height}, {size:.1f} MB")
        typer.echo(f"  trained on: {', '.join(spec.data)}; {spec.recipe}")
        if spec.tta:
            typer.echo(f"  test-time augmentation: {spec.tta}; the scores are without it")
        for part, licence in spec.licences.items():
            typer.echo(f"  licence of {part}: {licence}")
        small = chosen(path, InferenceOptions(precision="int8"))
        in_int8 = read_spec(small).scores if small != path else {}
        for rule, value in spec.scores.items():
            also = f", int8 {in_int8[rule]:.4f}" if rule in in_int8 else ""
            typer.echo(f"  {rule}: {value:.4f}{also}")


def info() -> None:
    """Show what is installed and what `auto` chooses on this machine."""
    import importlib.metadata
    import os
    import platform

    from humanpose import __version__
    from humanpose.api import load_model
    from humanpose.infer.options import InferenceOptions
    from humanpose.infer.runtime import cache_folder, installed

    typer.echo(
        f"humanpose {__version__}, Python {platform.python_version()}, {platform.platform()}"
    )
    typer.echo(f"cores: {os.cpu_count()}")
    versions = {each.metadata["Name"]: each.version for each in importlib.metadata.distributions()}
    packages = "numpy opencv-python-headless openvino onnxruntime av torch lightning"
    for package in packages.split():
        typer.echo(f"  {package} {versions.get(package, 'not installed')}")
    names = ("opencv-python", "opencv-contrib-python")
    owners = [n for name in names for n in (name, f"{name}-headless") if n in versions]
    if len(owners) > 1:
        typer.echo(
            f"warning: {' and '.join(owners)} both own cv2/; run: "
            f"pip uninstall -y {' '.join(owners)} && pip install opencv-python-headless"
        )
    typer.echo(f"cache of compiled models: {cache_folder(InferenceOptions()) or 'off'}")
    for name in installed():
        loaded = load_model(name, InferenceOptions())[0]
        typer.echo(f"{name}: auto runs it on {loaded.name} in {loaded.precision}")
