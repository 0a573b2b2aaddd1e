"""Training job: read a recipe's data sets, build its network, train it, score it meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from lightning.fabric import Fabric
from torch import Tensor

from humanpose import nets
from humanpose.checkpoints.start.movenet import read_movenet
from humanpose.checkpoints.start.onnx_file import read_onnx
from humanpose.checkpoints.start.tinypose import read_tinypose
from humanpose.checkpoints.store import load_weights, start_from
from humanpose.data.detection import PersonDataset, pictures_of
from humanpose.data.pose import PoseDataset, has_teacher, with_square_box
from humanpose.data.readers import read
from humanpose.data.sets import Marks, data_path, evenly, read_marks, resolved
from humanpose.data.targets import Targets
from humanpose.errors import InputError
from humanpose.evaluate.predictions import Matched
from humanpose.evaluate.run import estimate_samples, person_scores, pose_score
from humanpose.evaluate.scores import Comparison, Truth
from humanpose.files import locked
from humanpose.infer.detector import Detector
from humanpose.infer.runtime import Runtime, installed
from humanpose.infer.topdown import TopDown
from humanpose.lab.contact_sheet import training_sheet
from humanpose.nets.network import Net
from humanpose.nets.torch_runtime import TorchRuntime
from humanpose.skeleton import BODY19, SKELETONS, Skeleton, joint_map
from humanpose.spec import ModelSpec
from humanpose.train.config import Recipe, validate
from humanpose.train.distributed import Place, all_gather, launch, rank_slice
from humanpose.train.loop import fit
from humanpose.types import F32, U8, Sample, Score

T = TypeVar("T")
Sets = dict[str, list[Sample]]  # samples by data set

_SHARE = 400  # pictures or persons of each set that a validation scores, evenly spread


def train(
    recipe: Recipe,
    folder: Path,
    *,
    place: Place = Place(),
    resume: bool,
    show: Callable[[str], None],
) -> Path:
    """Run `recipe` in the processes of `place`; return the path of the best weights."""
    fabric = launch(recipe, folder, place)
    first = fabric.is_global_zero
    with locked(folder / ".lock", "training") if first else nullcontext():
        return _train(recipe, folder, fabric, resume, show if first else lambda line: None)


def _train(
    recipe: Recipe, folder: Path, fabric: Fabric, resume: bool, show: Callable[[str], None]
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
    marks: Marks = {}
    if not recipe.marks or resolved(recipe.marks).exists():
        marks = read_marks(recipe.marks)
    else:
        show(
            f"warning: no {recipe.marks}: people without annotation count as background "
            "(recipes/mark_people.py makes it)"
        )
    all_people = [sample for samples in sets.values() for sample in samples]
    dataset = _dataset_of(recipe, spec, training, all_people, marks, show)
    steps = recipe.sized(len(dataset)).steps
    show(f"{len(dataset)} training items; {steps} steps of {recipe.batch}")
    shown = [sample for sample in all_people if sample.split == "validation"]

    def picture(averaged: Net) -> U8:
        return training_sheet(TorchRuntime(averaged, spec), spec, shown)

    scores = partial(_validation_scores, spec=spec, sets=sets, marks=marks, fabric=fabric)
    best = fit(
        recipe, net, spec, dataset, scores, folder, fabric=fabric, resume=resume, show=show,
        picture=picture if shown and recipe.task != "person" else None,
    )  # fmt: skip
    show(f"best weights: {best}")
    return best


def _dataset_of(
    recipe: Recipe,
    spec: ModelSpec,
    parts: Sets,
    all_people: list[Sample],
    marks: Marks,
    show: Callable[[str], None],
) -> PoseDataset | PersonDataset:
    """Return the training data of `recipe` from the training `parts` of its sets.

    `all_people` of the sets' pictures appear in targets that show neighbours.
    """
    if recipe.task == "person":
        pictures = {name: pictures_of(part, marks) for name, part in parts.items()}
        return PersonDataset(
            repeated(pictures, recipe), spec, recipe.augment,
            seed=recipe.seed, mosaic=recipe.mosaic, empty=recipe.empty,
        )  # fmt: skip
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
        usable, spec, recipe.augment, seed=recipe.seed, targets=targets,
        taught=recipe.distil > 0, all_people=all_people, sizes=recipe.sizes,
    )  # fmt: skip


def read_sets(recipe: Recipe) -> Sets:
    """Return the samples of the recipe's data sets; a pack's belong to the sets it was made of.

    Raises:
        InputError: a set cannot be read, or a detector, which needs whole pictures, is to be
            trained on a pack.
    """
    sets: Sets = {}
    for name, path in map(data_path, recipe.data):
        if name == "pack" and recipe.task == "person":
            raise InputError(f"{path}: a pack holds people cut out; task person needs the pictures")
        for sample in read(name, path):
            key = sample.origin[0] if name == "pack" else name
            placed = sample if recipe.boxes == "own" else with_square_box(sample, recipe.boxes)
            sets.setdefault(key, []).append(placed)
    return sets


def training_parts(recipe: Recipe, sets: Sets) -> Sets:
    """Return the training part of each set, of at most `recipe.persons` persons.

    Raises InputError: no set has a training part.
    """
    parts = {name: [s for s in sets[name] if s.split == "train"] for name in sets}
    if not any(parts.values()):
        raise InputError("the data sets of the recipe have no training part")
    return {name: evenly(part, recipe.persons) for name, part in parts.items()}


def repeated(parts: dict[str, list[T]], recipe: Recipe) -> list[T]:
    """Return the items of all data sets, each set `recipe.repeat` times.

    A repeated item is another sample: its random changes differ within the epoch.
    """
    return [item for name, part in parts.items() for item in part * recipe.repeat.get(name, 1)]


def network_of(recipe: Recipe, sets: Sets) -> tuple[Net, ModelSpec]:
    """Return the network of `recipe` for the joints of its data, and its spec.

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


def skeleton_of(recipe: Recipe, sets: Sets) -> Skeleton:
    """Return the skeleton that `recipe` names, else that of its data.

    Raises InputError: an unknown name, or none and the sets differ.
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
    """Return the tensors of a built-in network, by its name, or of a file.

    Files: our .safetensors or .onnx, MoveNet's .tflite or .json, TinyPose's .xml or .param,
    YOLOX-nano's .onnx.
    """
    path = installed().get(start) or resolved(start)
    if path.suffix in (".tflite", ".json"):
        return read_movenet(path)
    if path.suffix in (".xml", ".param"):
        return read_tinypose(path)
    return read_onnx(path) if path.suffix == ".onnx" else load_weights(path)[0]


def network_scores(runtime: Runtime, spec: ModelSpec, samples: Sequence[Sample]) -> list[Score]:
    """Return the scores of a network on `samples`, boxes given; of a detector on their pictures."""
    if spec.task == "person":
        return list(person_scores(Detector(runtime, spec), pictures_of(samples)))
    return [pose_score(TopDown(runtime, spec), samples)]


def _validation_scores(
    net: Net, spec: ModelSpec, sets: Sets, marks: Marks, fabric: Fabric
) -> dict[str, float]:
    """Return scores of `net` on `_SHARE` items of each set's validation part, by all processes."""
    runtime = TorchRuntime(net, spec)
    scores: dict[str, float] = {}
    for name, samples in sets.items():
        part = [sample for sample in samples if sample.split == "validation"]
        if not part:
            continue
        if spec.task == "person":
            pictures = pictures_of(part, marks)
            pictures = pictures[:: max(1, len(pictures) // _SHARE)]
            mine, gather = pictures[rank_slice(fabric)], partial(all_gather, fabric=fabric)
            recall, precision = person_scores(Detector(runtime, spec), mine, gather=gather)
            scores |= {f"{name}_recall": recall.value, f"{name}_ap": precision.value}
        else:
            people = part[:: max(1, len(part) // _SHARE)]
            scores[name] = _pose_score(TopDown(runtime, spec), people, fabric)
    return scores


def _pose_score(estimator: TopDown, people: Sequence[Sample], fabric: Fabric) -> float:
    """Return the data set's own score of the joints that all processes find."""
    rows: list[tuple[F32, np.float32]] = []
    mine = people[rank_slice(fabric)]
    if mine:
        found = estimate_samples(estimator, mine)
        rows = list(zip(found.joints, found.scores, strict=True))
    joints, sure = map(np.stack, zip(*all_gather(rows, fabric), strict=True))
    known = joint_map(estimator.spec.skeleton, people[0].skeleton) >= 0
    whole = Matched(joints, sure, known, len(people), "boxes given")
    return Comparison(whole, Truth.of(people)).scores[0].value
