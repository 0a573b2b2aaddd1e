"""Run an ablation study: trainings side by side in processes of their own, results as CSV rows."""

from __future__ import annotations

import csv
import math
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from humanpose import nets
from humanpose.checkpoints.store import load_net
from humanpose.data.sets import part_of
from humanpose.data.targets import Targets
from humanpose.errors import DivergedError, InputError
from humanpose.evaluate.run import estimate_samples
from humanpose.evaluate.scores import Comparison, Truth
from humanpose.files import atomic_write
from humanpose.infer.topdown import TopDown
from humanpose.lab import training
from humanpose.lab.baselines import baseline_scores
from humanpose.lab.study_plan import Key, Study, fingerprint
from humanpose.nets.network import Net
from humanpose.nets.torch_runtime import TorchRuntime
from humanpose.spec import ModelSpec
from humanpose.train import logging
from humanpose.train.config import Recipe, validate
from humanpose.types import F32, U8

ROWS, POINTS, BASELINES = "runs.csv", "curves.csv", "baselines.csv"
# Recipe keys that the baselines depend on.
_BASELINE_KEYS = (
    "net", "options", "skeleton", "input", "spec", "data", "persons", "repeat", "boxes", "targets",
    "sigma", "compat",
)  # fmt: skip
_DEAD = 0.01  # of a Gaussian's height: a map that varies less is dead
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Row:
    """A finished run; scores are fractions, NaN where there is none.

    Attributes:
        recipe: fingerprint of its recipe.
        variant: by name.
        seed: of the run.
        ended: "" if it ran to its end, else why not.
        last: score after the last epoch.
        best: the best of all epochs.
        fine: of the best epoch, at half the score's threshold.
        dead: of the best epoch, share of validation maps that do not vary.
        parameters: of the network.
        multiplies: multiply-accumulates of one input.
        rate: training samples a second, median, while other runs share the machine.
    """

    recipe: str
    variant: str
    seed: int
    ended: str
    last: float
    best: float
    fine: float
    dead: float
    parameters: int
    multiplies: int
    rate: float


@dataclass(frozen=True, slots=True)
class Point:
    """A validation of a run; `loss` and `grad_norm` are means since the one before."""

    recipe: str
    variant: str
    seed: int
    epoch: float
    score: float
    loss: float
    grad_norm: float


@dataclass(frozen=True, slots=True)
class Baseline:
    """A score without training of the network."""

    recipe: str
    name: str
    score: float


def carry_out(
    study: Study,
    folder: Path,
    *,
    jobs: int,
    show: Callable[[str], None],
    finished: Callable[[list[Row], list[Point]], None],
) -> None:
    """Run trainings of `study` without a row in `folder`; call `finished` with all rows each time.

    An interrupted run continues from its checkpoint in `folder`/runs. After a run that fails the
    others go on; its error is raised when they are done.

    Raises InputError: a recipe is wrong, or a claim about a variant's network does not hold.
    """
    plans = study.runs()
    rows, points = ours(study, folder)
    done = {_key(row) for row in rows}
    left = {key: recipe for key, recipe in plans.items() if key not in done}
    sets: training.Sets = {}
    for name in dict.fromkeys(variant for _, variant, _ in left):
        recipe = study.training(name, study.seeds[0])
        sets = sets or training.read_sets(recipe)
        net, spec = training.network_of(recipe, sets)
        validate(recipe, net, spec)  # a key without effect is an error too
        study.check_claims(name, net, recipe.input)
    show(f"{study.name}: {len(done)} of {len(plans)} runs are done")
    finished(rows, points)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    context = multiprocessing.get_context("spawn")
    failed: list[Exception] = []
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        futures: dict[Future[tuple[Row, list[Point]]], Key] = {}
        for key, recipe in left.items():
            recipe = recipe.model_copy(update={"threads": recipe.threads or threads})
            futures[pool.submit(_run, study, key, recipe, folder / "runs")] = key
        try:
            for future in as_completed(futures):
                try:
                    row, path = future.result()
                except Exception as error:  # keep the results of the other runs
                    _, name, seed = futures[future]
                    show(f"{name}, seed {seed}: failed: {error}")
                    failed.append(error)
                    continue
                rows.append(row)
                points += path
                add_rows(folder / POINTS, path)
                add_rows(folder / ROWS, [row])
                result = row.ended or f"{row.last:.4f} after the last epoch, best {row.best:.4f}"
                show(f"{row.variant}, seed {row.seed}: {result}, {row.rate:.0f} samples/s "
                     f"({len(rows)} of {len(plans)})")  # fmt: skip
                finished(rows, points)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failed:
        raise failed[0]


def ours(study: Study, folder: Path) -> tuple[list[Row], list[Point]]:
    """Return the rows and points in `folder` of the runs of `study` as it is now, each once."""
    keys = study.runs()
    rows = {_key(row): row for row in read_rows(folder / ROWS, Row) if _key(row) in keys}
    # A kill between writing the two files leaves points without a row; the run is done again.
    points = {(_key(p), p.epoch): p for p in read_rows(folder / POINTS, Point) if _key(p) in rows}
    return list(rows.values()), list(points.values())


def _key(row: Row | Point) -> Key:
    return row.recipe, row.variant, row.seed


def _run(study: Study, key: Key, recipe: Recipe, folder: Path) -> tuple[Row, list[Point]]:
    """Train one run, from its checkpoint if there is one; return its row and points."""
    mark, name, seed = key
    folder /= f"{name}-{seed}-{mark}"
    folder.mkdir(parents=True, exist_ok=True)
    ended = ""
    with (folder / "log.txt").open("a", encoding="utf-8", buffering=1) as log:
        try:
            training.train(recipe, folder, resume=True, show=lambda line: print(line, file=log))
        except DivergedError as error:
            ended = str(error)
    sets = training.read_sets(recipe)
    items = len(training.repeated(training.training_parts(recipe, sets), recipe))
    curve = logging.curve(folder / logging.CURVE)
    points = list(_points(curve, f"val/{study.score}", key, recipe.batch / items))
    scores = [point.score for point in points if math.isfinite(point.score)]
    fine = dead = math.nan
    if (best := folder / "best.safetensors").exists():
        net, spec = load_net(best)  # strict: the names of all weights must be the network's
        study.check_claims(name, net, spec.input, trained=True)
        runtime = _Watched(net, spec)
        part = part_of(sets[study.score], "validation", study.score)
        found = Comparison(estimate_samples(TopDown(runtime, spec), part), Truth.of(part))
        fine = float(found.curve(np.array([found.threshold / 2]))[0])
        dead = float(np.mean(runtime.dead))
    net, spec = training.network_of(recipe, sets)
    rates = list(curve.get("samples_per_s", {}).values())
    return Row(
        *key,
        ended,
        last=math.nan if ended or not scores else scores[-1],
        best=max(scores, default=math.nan),
        fine=fine,
        dead=dead,
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        multiplies=nets.macs(recipe.net, recipe.input, **spec.options),
        rate=float(np.median(rates)) if rates else math.nan,
    ), points


def _points(curve: logging.Curve, name: str, key: Key, epochs: float) -> Iterator[Point]:
    """Yield the validations `name` in the curve of a run whose steps last so many epochs."""
    before = 0
    for step, score in sorted(curve.get(name, {}).items()):
        means = []
        for kind in ("loss", "grad_norm"):
            values = [v for at, v in curve.get(kind, {}).items() if before < at <= step]
            means.append(float(np.mean(values)) if values else math.nan)
        yield Point(*key, round(step * epochs, 1), score, *means)
        before = step


class _Watched(TorchRuntime):
    """A runtime that notes of each map whether it is dead."""

    def __init__(self, net: Net, spec: ModelSpec) -> None:
        super().__init__(net, spec)
        self.dead: list[np.bool_] = []

    def run(self, crops: U8) -> dict[str, F32]:
        found = super().run(crops)
        self.dead += list(~(np.ptp(found["maps"], axis=(2, 3)) >= _DEAD).ravel())  # or NaN
        return found


def baselines_of(study: Study, folder: Path) -> list[Baseline]:
    """Return scores without training on the study's data: solved once (a minute), then read."""
    recipe = study.training(next(iter(study.variants)), study.seeds[0])
    key = fingerprint(recipe, _BASELINE_KEYS)
    found = [row for row in read_rows(folder / BASELINES, Baseline) if row.recipe == key]
    if not found:
        sets = training.read_sets(recipe)
        _, spec = training.network_of(recipe, sets)
        part = part_of(sets[study.score], "validation", study.score)
        learnt = training.repeated(training.training_parts(recipe, sets), recipe)
        targets = Targets(recipe.targets, recipe.sigma, recipe.compat)
        scores = baseline_scores(part, spec, learnt, targets)
        found = [Baseline(key, name, score) for name, score in scores.items()]
        add_rows(folder / BASELINES, found)
    return found


def read_rows(path: Path, kind: type[Made]) -> list[Made]:
    """Return the rows of a CSV file that `add_rows` wrote; none if it is not there.

    Raises InputError: a line is not of this kind.
    """
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        try:
            return TypeAdapter(list[kind]).validate_python(list(csv.DictReader(file)))  # type: ignore[valid-type]
        except ValidationError as error:
            reason = f"{error.errors()[0]['loc'][-1]}: {error.errors()[0]['msg']}"
            raise InputError(f"{path}: not rows of a study ({reason})") from error


def add_rows(path: Path, rows: Sequence[Row | Point | Baseline]) -> None:
    """Append `rows`, all of one kind, to a CSV file; keep rows that were added meanwhile."""
    if not rows:
        return
    lines = [asdict(row) for row in (*read_rows(path, type(rows[0])), *rows)]
    with atomic_write(path, "w") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        for line in lines:
            texts = {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in line.items()}
            writer.writerow(texts)
