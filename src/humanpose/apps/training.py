"""From a recipe to a trained network: joins data, nets, scoring and the loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from humanpose import nets
from humanpose.apps.data_sets import Marks, data_path, read_marks, resolved
from humanpose.apps.scoring import person_scores, pose_scores
from humanpose.checkpoints.movenet import read_movenet
from humanpose.checkpoints.store import load_weights, start_from
from humanpose.data.dataset import PoseDataset
from humanpose.data.people import PersonDataset, pictures_of
from humanpose.data.readers import read
from humanpose.errors import InputError
from humanpose.infer.detector import Detector
from humanpose.infer.estimator import Estimator
from humanpose.nets.torch_runtime import TorchRuntime
from humanpose.skeleton import BODY19
from humanpose.spec import ModelSpec
from humanpose.train.config import Recipe
from humanpose.train.loop import fit
from humanpose.types import Sample

T = TypeVar("T")

# Validation while training looks at this many pictures or persons of each set, evenly spread;
# `humanpose evaluate` scores them all.
_VALIDATION_SHARE = 400


def train(recipe: Recipe, folder: Path, *, resume: bool, show: Callable[[str], None]) -> Path:
    """Run `recipe`; returns the path of the best weights in `folder`."""
    spec = spec_of(recipe)
    net = nets.create(recipe.net, **recipe.options)
    if recipe.start:
        state = start_state(resolved(recipe.start))
        fresh = start_from(net, state)
        show(f"started from {recipe.start}; new: {', '.join(fresh) or 'nothing'}")
    sets = {name: read(name, path) for name, path in map(data_path, recipe.data)}
    unknown = sorted(set(recipe.repeat) - set(sets))
    if unknown:
        raise InputError(f"repeat: {', '.join(unknown)} is not among the recipe's data sets")
    training = {name: [s for s in sets[name] if s.split == "train"] for name in sets}
    if not any(training.values()):
        raise InputError("the data sets of the recipe have no training part")
    marks: Marks = {}
    if recipe.marks and not resolved(recipe.marks).exists():
        show(
            f"warning: no {recipe.marks}: people whom nobody annotated count as background "
            "(recipes/mark_people.py makes it)"
        )
    else:
        marks = read_marks(recipe.marks)
    dataset: PoseDataset | PersonDataset
    if recipe.task == "pose":
        people = repeated(training, recipe)
        dataset = PoseDataset(people, spec, recipe.augment, seed=recipe.seed, sigma=recipe.sigma)
    else:
        dataset = PersonDataset(
            repeated({name: pictures_of(part, marks) for name, part in training.items()}, recipe),
            spec,
            recipe.augment,
            seed=recipe.seed,
            mosaic=recipe.mosaic,
        )
    show(f"{len(dataset)} training items; {recipe.steps} steps of {recipe.batch}")

    def validate(averaged: nn.Module) -> dict[str, float]:
        return validation_scores(averaged, spec, sets, marks)

    return fit(recipe, net, spec, dataset, validate, folder, resume=resume, show=show)


def repeated(parts: dict[str, list[T]], recipe: Recipe) -> list[T]:
    """Items of all data sets, each set as often as the recipe asks.

    A repeated item is another sample: its random changes differ within the epoch.
    """
    return [item for name, part in parts.items() for item in part * recipe.repeat.get(name, 1)]


def spec_of(recipe: Recipe) -> ModelSpec:
    """The description that a network trained by `recipe` carries."""
    return ModelSpec(
        name=recipe.name,
        task=recipe.task,
        net=recipe.net,
        options=recipe.options,
        skeleton=BODY19,
        input=recipe.input,
        crop="box" if recipe.task == "pose" else "whole",
        decode="dark" if recipe.task == "pose" else "boxes",
        data=tuple(name.partition("=")[0] for name in recipe.data),
        recipe=f"recipes/{recipe.net}.yaml, {recipe.samples} samples, seed {recipe.seed}",
    )


def start_state(path: Path) -> dict[str, Tensor]:
    """Tensors to start from: our safetensors, or MoveNet's .tflite."""
    if path.suffix == ".tflite":
        return read_movenet(path)
    return load_weights(path)[0]


def validation_scores(
    net: nn.Module,
    spec: ModelSpec,
    sets: dict[str, list[Sample]],
    marks: Marks,
) -> dict[str, float]:
    """Scores of `net` on an even share of each set's validation part."""
    runtime = TorchRuntime(net, spec)
    scores: dict[str, float] = {}
    for name, samples in sets.items():
        part = [sample for sample in samples if sample.split == "validation"]
        if not part:
            continue
        if spec.task == "pose":
            part = part[:: max(1, len(part) // _VALIDATION_SHARE)]
            (score,) = pose_scores(Estimator(runtime, spec), part)
            scores[name] = score.value
        else:
            pictures = pictures_of(part, marks)
            pictures = pictures[:: max(1, len(pictures) // _VALIDATION_SHARE)]
            recall, precision = person_scores(Detector(runtime, spec), pictures)
            scores[f"{name}_recall"], scores[f"{name}_ap"] = recall.value, precision.value
    return scores
