"""Train a network from a recipe: join data, nets, scoring and the loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from lightning.fabric import Fabric
from torch import Tensor

from humanpose import nets
from humanpose.checkpoints.start.movenet import read_movenet
from humanpose.checkpoints.start.onnx_file import read_onnx
from humanpose.checkpoints.store import load_weights, start_from
from humanpose.data.detection import PersonDataset, pictures_of
from humanpose.data.pose import PoseDataset, has_teacher, with_square_box
from humanpose.data.readers import read
from humanpose.data.sets import Marks, data_path, evenly, read_marks, resolved
from humanpose.data.targets import Targets
from humanpose.errors import InputError
from humanpose.files import locked
from humanpose.infer.catalog import installed
from humanpose.lab.contact_sheet import training_sheet
from humanpose.lab.validation import validation_scores
from humanpose.nets.network import Net
from humanpose.nets.torch_runtime import TorchRuntime
from humanpose.skeleton import BODY19, SKELETONS, Skeleton
from humanpose.spec import ModelSpec
from humanpose.train.config import Recipe, validate
from humanpose.train.distributed import Place, launch
from humanpose.train.loop import fit
from humanpose.types import U8, Sample

T = TypeVar("T")


def train(
    recipe: Recipe,
    folder: Path,
    *,
    place: Place = Place(),
    resume: bool,
    show: Callable[[str], None],
) -> Path:
    """Run `recipe` in the processes of `place`; returns the path of the best weights."""
    fabric = launch(recipe, folder, place)
    if not fabric.is_global_zero:
        return _trained(recipe, folder, fabric, resume=resume, show=_silent)
    with locked(folder / ".lock", "training"):
        return _trained(recipe, folder, fabric, resume=resume, show=show)


def _trained(
    recipe: Recipe, folder: Path, fabric: Fabric, *, resume: bool, show: Callable[[str], None]
) -> Path:
    start = start_state(recipe.start) if recipe.start else {}
    sets = read_sets(recipe)
    net, spec = network_of(recipe, sets)
    validate(recipe, net, spec)
    if start:
        fresh = start_from(net, start, wider=net.wider)
        if len(fresh) == len(net.state_dict()):
            raise InputError(f"start: nothing in {recipe.start} fits {recipe.net}")
        net.prepare()
        show(f"started from {recipe.start}; new: {', '.join(fresh) or 'nothing'}")
    unknown = sorted(set(recipe.repeat) - set(sets))
    if unknown:
        raise InputError(f"repeat: {', '.join(unknown)} is not among the recipe's data sets")
    training = training_parts(recipe, sets)
    marks = _marks(recipe, show)
    all_people = [sample for samples in sets.values() for sample in samples]
    dataset = dataset_of(recipe, spec, training, all_people, marks, show)
    show(
        f"{len(dataset)} training items; {recipe.sized(len(dataset)).steps} steps of {recipe.batch}"
    )

    shown = [sample for sample in all_people if sample.split == "validation"]

    def score(averaged: Net) -> dict[str, float]:
        return validation_scores(averaged, spec, sets, marks, fabric)

    def picture(averaged: Net) -> U8:
        return training_sheet(TorchRuntime(averaged, spec), spec, shown)

    best = fit(
        recipe,
        net,
        spec,
        dataset,
        score,
        folder,
        fabric=fabric,
        picture=picture if shown and recipe.task != "person" else None,
        resume=resume,
        show=show,
    )
    show(f"best weights: {best}")
    return best


def _silent(_: str) -> None:
    """Print nothing: for processes other than the first."""


def _marks(recipe: Recipe, show: Callable[[str], None]) -> Marks:
    if recipe.marks and not resolved(recipe.marks).exists():
        show(
            f"warning: no {recipe.marks}: people without annotation count as background "
            "(recipes/mark_people.py makes it)"
        )
        return {}
    return read_marks(recipe.marks)


def dataset_of(
    recipe: Recipe,
    spec: ModelSpec,
    parts: dict[str, list[Sample]],
    all_people: list[Sample],
    marks: Marks,
    show: Callable[[str], None],
) -> PoseDataset | PersonDataset:
    """The training data of `recipe` from `parts` of its sets, whose pictures show `all_people`."""
    if recipe.task == "person":
        return PersonDataset(
            repeated({name: pictures_of(part, marks) for name, part in parts.items()}, recipe),
            spec,
            recipe.augment,
            seed=recipe.seed,
            mosaic=recipe.mosaic,
            empty=recipe.empty,
        )
    people = repeated(parts, recipe)
    usable = [s for s in people if np.isfinite(s.box).all() and (s.box[2:] > 0).all()]
    if len(usable) < len(people):
        show(f"warning: {len(people) - len(usable)} persons without a box are left out")
    if recipe.distil and not all(has_teacher(sample, spec.skeleton) for sample in usable):
        raise InputError(
            f"distil: not all data hold a teacher's maps of {spec.skeleton.name}; make a pack by "
            "humanpose data build --teacher"
        )
    targets = Targets(recipe.targets, recipe.sigma, recipe.compat, recipe.joint_weights)
    return PoseDataset(
        usable,
        spec,
        recipe.augment,
        seed=recipe.seed,
        targets=targets,
        taught=recipe.distil > 0,
        all_people=all_people,
        sizes=recipe.sizes,
    )


def read_sets(recipe: Recipe) -> dict[str, list[Sample]]:
    """Samples of the recipe's data sets by name; a pack's go to the sets it was made of.

    Raises:
        InputError: a set cannot be read, or a pack is to train a detector, for which the
            pictures that it cuts people out of would be needed whole.
    """
    sets: dict[str, list[Sample]] = {}
    for name, path in map(data_path, recipe.data):
        if name == "pack" and recipe.task == "person":
            raise InputError(f"{path}: a pack holds people cut out; task person needs the pictures")
        for sample in read(name, path):
            key = sample.origin[0] if name == "pack" else name
            placed = sample if recipe.boxes == "own" else with_square_box(sample, recipe.boxes)
            sets.setdefault(key, []).append(placed)
    return sets


def training_parts(recipe: Recipe, sets: dict[str, list[Sample]]) -> dict[str, list[Sample]]:
    """The training part of each set, or as many persons of it as the recipe wants.

    Raises:
        InputError: there are no people to train on.
    """
    parts = {name: [s for s in sets[name] if s.split == "train"] for name in sets}
    if not any(parts.values()):
        raise InputError("the data sets of the recipe have no training part")
    return {name: evenly(part, recipe.persons) for name, part in parts.items()}


def repeated(parts: dict[str, list[T]], recipe: Recipe) -> list[T]:
    """Items of all data sets, each set as often as the recipe asks.

    A repeated item is another sample: its random changes differ within the epoch.
    """
    return [item for name, part in parts.items() for item in part * recipe.repeat.get(name, 1)]


def network_of(recipe: Recipe, sets: dict[str, list[Sample]]) -> tuple[Net, ModelSpec]:
    """The network of `recipe` for the joints of its data, and the description that it carries.

    Raises:
        InputError: the joints to train are not clear, or an option or value of the spec is wrong.
    """
    skeleton = skeleton_of(recipe, sets)
    options = dict(recipe.options)
    if recipe.task != "person":
        count = options.setdefault("joints", len(skeleton.joints))
        if count != len(skeleton.joints):
            raise InputError(
                f"options.joints is {count}, but {skeleton.name} has {len(skeleton.joints)} joints"
            )
    net = nets.create(recipe.net, **options)
    length = f"{recipe.samples} samples" if recipe.samples else f"{recipe.epochs:g} epochs"
    changes: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in recipe.spec.items()
    }
    try:
        return net, replace(
            net.spec(recipe.name, recipe.net, options, skeleton),
            task=recipe.task,
            input=recipe.input,
            data=tuple(sets),
            licences={},
            recipe=f"recipe {recipe.name!r}, {length}, seed {recipe.seed}",
            **changes,
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"recipe {recipe.name!r}: {error}") from error


def skeleton_of(recipe: Recipe, sets: dict[str, list[Sample]]) -> Skeleton:
    """The joints that `recipe` trains: those it names, else those of its data.

    Raises:
        InputError: an unknown name, or none and the sets differ.
    """
    if recipe.skeleton:
        if recipe.skeleton not in SKELETONS:
            known = ", ".join(sorted(SKELETONS))
            raise InputError(f"skeleton {recipe.skeleton!r} is not known; there are: {known}")
        return SKELETONS[recipe.skeleton]
    if recipe.task == "person":
        return BODY19
    found = {sample.skeleton for samples in sets.values() for sample in samples}
    if len(found) != 1:
        names = ", ".join(sorted(skeleton.name for skeleton in found)) or "none"
        raise InputError(
            f"the data sets have different joints ({names}): say which to train, "
            "e.g. --set skeleton=body19"
        )
    return found.pop()


def start_state(start: str) -> dict[str, Tensor]:
    """Tensors to start from.

    Args:
        start: a built-in network's name, or a file: our .safetensors or .onnx, MoveNet's .tflite or
            .json, YOLOX-nano's .onnx.
    """
    path = installed().get(start) or resolved(start)
    if path.suffix in (".tflite", ".json"):
        return read_movenet(path)
    if path.suffix == ".onnx":
        return read_onnx(path)
    return load_weights(path)[0]
