"""Build packs: from a recipe to the samples, and to their shards."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from humanpose.data.pack import SPLITS
from humanpose.data.pack_writer import Plan, Store, Teacher, plan_of, split_by_picture, write_pack
from humanpose.data.readers import read
from humanpose.data.sets import data_path
from humanpose.errors import OutputError, require
from humanpose.files import prepare_output, sha256
from humanpose.geometry import Crop
from humanpose.types import F32, U8

Report = dict[str, Any]


class Shares(BaseModel):
    """Shares of each data set's pictures, in sum 1."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: float = Field(ge=0, le=1)
    validation: float = Field(0.0, ge=0, le=1)
    test: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _whole(self) -> Shares:
        if abs(self.train + self.validation + self.test - 1) > 1e-6:
            raise ValueError("train, validation and test must sum up to 1")
        return self


class PackRecipe(BaseModel):
    """Recipe of a pack: data sets, splits, and what is kept; `recipes/*.yaml` are examples."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: list[str] = Field(min_length=1, description="NAME (below $HUMANPOSE_DATA) or NAME=PATH")
    split: Literal["keep"] | Shares = Field("keep", description="the sets' own, or shares")
    seed: int = Field(0, ge=0)
    box: int | tuple[int, int] = Field(256, description="of the later crop, pixels; see Store")
    context: float = Field(1.25, ge=1, le=4)
    reach: float = Field(1.75, ge=1, le=8)
    quality: int = Field(92, ge=1, le=100, description="of JPEG")
    raw: bool = Field(False, description="pixels in place of JPEG")
    leave_out: list[str] = Field([], description="file names of pictures not to take")
    shard: int = Field(2000, ge=1, description="persons in each HDF5 file of the pack")

    def store(self) -> Store:
        """Return what is kept of the pictures."""
        box = (self.box, self.box) if isinstance(self.box, int) else self.box
        return Store(box, self.context, self.reach, self.quality, self.raw)


def build(
    recipe: PackRecipe,
    output: Path,
    *,
    force: bool = False,
    workers: int = 0,
    teacher: str | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Report:
    """Build a pack.

    Args:
        recipe: what it holds.
        output: its index, NAME.json; the shards lie beside it.
        force: replace a pack that is there.
        workers: threads; 0 = as many as there are cores.
        teacher: a pose network, by name or file, whose maps of each person are stored too.
        progress: called with (finished, all) persons.

    Returns:
        persons, kept (of them, from an unfinished build), bytes, left_out (persons without a box
        or a joint), splits ({"set split": persons}), seconds.

    Raises:
        InputError: a data set or a picture cannot be read.
        OutputError: the file exists, the disk is full.
        MissingExtraError: h5py is not installed.
    """
    require("h5py", "data")
    if output.suffix != ".json":
        raise OutputError(f"cannot write {output}: the name of a pack ends in .json")
    prepare_output(output, force=force)
    start = time.monotonic()
    teach, taught = _load_teacher(teacher) if teacher else (None, None)
    made, left_out = plan(recipe, taught)
    threads, persons = workers or os.cpu_count() or 1, len(made.rows)
    summary = write_pack(
        output, made, workers=threads, progress=lambda done: progress(done, persons), teacher=teach
    )
    splits = Counter(f"{row['dataset'].decode()} {SPLITS[row['split']]}" for row in made.rows)
    seconds = round(time.monotonic() - start, 3)
    return {**summary, "left_out": left_out, "splits": splits, "seconds": seconds}


def plan(recipe: PackRecipe, teacher: Report | None = None) -> tuple[Plan, int]:
    """Return the plan of a pack and how many persons are left out, without a box or a joint.

    `teacher` is the teacher's description for the pack's index.
    """
    sets = [data_path(entry) for entry in recipe.data]
    samples = [s for entry in sets for s in read(*entry) if s.picture.name not in recipe.leave_out]
    boxed = (s for s in samples if np.isfinite(s.box).all() and s.box[2:].max() > 0)
    usable = [sample for sample in boxed if (sample.visible > 0).any()]
    own = recipe.split
    shares = None if isinstance(own, str) else (own.train, own.validation, own.test)
    splits = split_by_picture(usable, shares, recipe.seed)
    # Paths say nothing about the content, and would give away the maker's folders.
    said = recipe.model_dump(mode="json") | {"data": [name for name, _ in sets]}
    about = {"recipe": said} | ({"teacher": teacher} if teacher else {})
    made = plan_of(usable, splits, recipe.store(), about, recipe.shard)
    return made, len(samples) - len(usable)


def _load_teacher(name: str) -> tuple[Teacher, Report]:
    """Return a function that makes a network's maps of a person, and its description."""
    from humanpose.api import load_model
    from humanpose.infer.options import InferenceOptions
    from humanpose.infer.topdown import TopDown

    runtime, spec, path = load_model(name, InferenceOptions(precision="float32"))
    estimator = TopDown(runtime, spec, InferenceOptions(keep_maps=True))
    one_at_a_time = Lock()

    def teach(image: U8, box: F32) -> tuple[NDArray[np.float16], Crop]:
        with one_at_a_time:
            (person,) = estimator.estimate(image, np.maximum(box, (-np.inf, -np.inf, 1, 1))[None])
        assert person.maps is not None and person.cells is not None
        return person.maps, person.cells

    maps, _ = teach(np.zeros((64, 64, 3), np.uint8), np.array([8, 8, 40, 40], np.float32))
    about = {"spec": json.loads(spec.to_json()), "sha256": sha256(path), "maps": maps.shape}
    return teach, about
