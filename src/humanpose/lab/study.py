"""Carry out a study: its runs side by side, each in a process of its own, and their rows as CSV."""

from __future__ import annotations

import csv
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
from humanpose.data.targets import Targets
from humanpose.errors import DivergedError, InputError
from humanpose.evaluate.run import estimate_samples
from humanpose.evaluate.scores import Comparison, Truth
from humanpose.files import atomic_write
from humanpose.infer.topdown import TopDown
from humanpose.lab import training
from humanpose.lab.baselines import baseline_scores
from humanpose.lab.study_plan import Study, broken_claims, fingerprint
from humanpose.nets.network import Net
from humanpose.nets.torch_runtime import TorchRuntime
from humanpose.train import logging
from humanpose.train.config import Recipe, validate
from humanpose.types import F32, U8, Sample

ROWS, POINTS, BASELINES = "runs.csv", "curves.csv", "baselines.csv"
# Recipe keys that the baselines depend on.
_BASELINE_KEYS = (
    "net", "options", "skeleton", "input", "spec", "data", "persons", "repeat", "boxes", "targets",
    "sigma", "compat",
)  # fmt: skip
_DEAD = 0.01  # of a Gaussian's height: a map that varies less says nothing
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Row:
    """One finished run; scores and shares are of 1, NaN where there is none.

    Attributes:
        recipe: fingerprint of the recipe that it ran.
        variant: by name.
        seed: of the run.
        ended: "" if it ran to its end, else why not.
        last: score after the last epoch.
        best: the best of all epochs.
        fine: of the best epoch, at half the score's threshold.
        dead: of the best epoch, share of validation maps that do not vary.
        parameters: of the network.
        multiplies: multiply-accumulates of one input.
        rate: training samples a second, median, beside whatever else the machine did.
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
    """One epoch of a run: `loss` and `grad_norm` are means since the point before."""

    recipe: str
    variant: str
    seed: int
    epoch: float
    score: float
    loss: float
    grad_norm: float


@dataclass(frozen=True, slots=True)
class Baseline:
    """A score that takes no training of the network."""

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

    An interrupted run continues from its checkpoint in `folder`/runs. One that fails does not
    end the others: its error is raised when they are done.

    Raises:
        InputError: a recipe is wrong, or a claim about a variant's network does not hold.
    """
    plans = {
        (name, seed): study.training(name, seed) for seed in study.seeds for name in study.variants
    }
    rows, points = ours(study, folder)
    done = {(row.variant, row.seed) for row in rows}
    left = {key: plan for key, plan in plans.items() if key not in done}
    refuse_broken(study, {name for name, _ in left})
    show(f"{study.name}: {len(done)} of {len(plans)} runs are done")
    finished(rows, points)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        futures: dict[Future[tuple[Row, list[Point]]], tuple[str, int]] = {}
        failed: list[Exception] = []
        for (name, seed), plan in left.items():
            plan = plan if plan.threads else plan.model_copy(update={"threads": threads})
            place = folder / "runs" / f"{name}-{seed}-{fingerprint(plan)}"
            futures[pool.submit(_run, study, name, plan, place)] = (name, seed)
        try:
            for future in as_completed(futures):
                try:
                    row, path = future.result()
                except Exception as error:  # the others are worth their hours all the same
                    name, seed = futures[future]
                    show(f"{name}, seed {seed}: failed: {error}")
                    failed.append(error)
                    continue
                rows.append(row)
                points += path
                # What others have written meanwhile, or of other recipes, stays.
                add_rows(folder / POINTS, path)
                add_rows(folder / ROWS, [row])
                show(_line(row, len(rows), len(plans)))
                finished(rows, points)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failed:
        raise failed[0]


def ours(study: Study, folder: Path) -> tuple[list[Row], list[Point]]:
    """The rows and points in `folder` of the runs that `study` wants as it now is."""
    keys = {
        (fingerprint(study.training(name, seed)), name, seed)
        for seed in study.seeds
        for name in study.variants
    }
    # Rows of several sittings put together may hold a run twice.
    there = {_key(row): row for row in read_rows(folder / ROWS, Row) if _key(row) in keys}
    # A kill between the two files leaves points without a row; the run is done again.
    points = [point for point in read_rows(folder / POINTS, Point) if _key(point) in there]
    return list(there.values()), list(
        {(*_key(point), point.epoch): point for point in points}.values()
    )


def _key(row: Row | Point) -> tuple[str, str, int]:
    return row.recipe, row.variant, row.seed


def refuse_broken(study: Study, variants: set[str]) -> None:
    """Raise an InputError if a claim of `variants` does not hold, or a key has no effect."""
    sets: dict[str, list[Sample]] = {}
    for name in study.variants:
        if name in variants:
            recipe = study.training(name, study.seeds[0])
            sets = sets or training.read_sets(recipe)
            net, spec = training.network_of(recipe, sets)
            validate(recipe, net, spec)
            _refuse(study, name, net, recipe.input, trained=False)


def _refuse(study: Study, name: str, net: Net, size: tuple[int, int], *, trained: bool) -> None:
    broken = broken_claims(net, study.variants[name].holds, size, trained=trained)
    if broken:
        claims = ", ".join(f"'{claim}'" for claim in broken)
        raise InputError(
            f"study {study.name}, variant {name}: {claims} does not hold of its network; "
            "what the variant sets does not reach it"
        )


def _run(study: Study, name: str, recipe: Recipe, folder: Path) -> tuple[Row, list[Point]]:
    """One run from beginning or checkpoint to its row, in a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    ended = ""
    with (folder / "log.txt").open("a", encoding="utf-8", buffering=1) as log:

        def show(line: str) -> None:
            log.write(f"{line}\n")

        try:
            training.train(recipe, folder, resume=True, show=show)
        except DivergedError as error:
            ended = str(error)
    sets = training.read_sets(recipe)
    items = len(training.repeated(training.training_parts(recipe, sets), recipe))
    points = list(_points(study, name, recipe, folder, items))
    fresh, _ = training.network_of(recipe, sets)
    parameters = sum(parameter.numel() for parameter in fresh.parameters())
    options = dict(recipe.options) | {"joints": len(training.skeleton_of(recipe, sets).joints)}
    scores = [point.score for point in points if np.isfinite(point.score)]
    fine = dead = float("nan")
    if (folder / "best.safetensors").exists():
        fine, dead = _looked_at(study, name, folder / "best.safetensors", sets[study.score])
    rates = list(logging.curve(folder / logging.CURVE).get("samples_per_s", {}).values())
    return Row(
        fingerprint(recipe),
        name,
        recipe.seed,
        ended,
        last=float("nan") if ended or not scores else scores[-1],
        best=max(scores, default=float("nan")),
        fine=fine,
        dead=dead,
        parameters=parameters,
        multiplies=nets.macs(recipe.net, recipe.input, **options),
        rate=float(np.median(rates)) if rates else float("nan"),
    ), points


def _points(study: Study, name: str, recipe: Recipe, folder: Path, items: int) -> Iterator[Point]:
    """The validations of a run with `items` in an epoch, out of its curve."""
    figures = logging.curve(folder / logging.CURVE)
    scores = figures.get(f"val/{study.score}", {})
    before = 0
    for step, score in sorted(scores.items()):
        losses, norms = (
            [value for at, value in figures.get(kind, {}).items() if before < at <= step]
            for kind in ("loss", "grad_norm")
        )
        epoch = round(step * recipe.batch / items, 1)
        means = _mean(losses), _mean(norms)
        yield Point(fingerprint(recipe), name, recipe.seed, epoch, score, *means)
        before = step


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


class _Watched:
    """A runtime that notes which of the maps it gives do not vary."""

    def __init__(self, inner: TorchRuntime) -> None:
        self.inner = inner
        self.name, self.precision = inner.name, inner.precision
        self.dead: list[np.bool_] = []

    def run(self, crops: U8) -> dict[str, F32]:
        found = self.inner.run(crops)
        alive = np.ptp(found["maps"], axis=(2, 3)) >= _DEAD  # what is no number is not alive
        self.dead += list(~alive.ravel())
        return found


def _looked_at(
    study: Study, name: str, weights: Path, samples: list[Sample]
) -> tuple[float, float]:
    """Score at half the threshold and share of dead maps; refuses a net that is not as claimed.

    What was trained is loaded into a fresh network by name, strictly: what has no place there,
    or is missing, is an error.
    """
    net, spec = load_net(weights)
    _refuse(study, name, net, spec.input, trained=True)
    runtime = _Watched(TorchRuntime(net, spec))
    part = [sample for sample in samples if sample.split == "validation"]
    found = Comparison(estimate_samples(TopDown(runtime, spec), part), Truth.of(part))
    (fine,) = found.curve(np.array([found.threshold / 2]))
    return float(fine), float(np.mean(runtime.dead))


def baselines_of(study: Study, folder: Path) -> list[Baseline]:
    """Scores without training on the study's data; solved once (a minute), then read."""
    name = next(iter(study.variants))
    recipe = study.training(name, study.seeds[0])
    key = fingerprint(recipe, _BASELINE_KEYS)
    found = [row for row in read_rows(folder / BASELINES, Baseline) if row.recipe == key]
    if not found:
        sets = training.read_sets(recipe)
        _, spec = training.network_of(recipe, sets)
        part = [sample for sample in sets[study.score] if sample.split == "validation"]
        learnt = training.repeated(training.training_parts(recipe, sets), recipe)
        targets = Targets(recipe.targets, recipe.sigma, recipe.compat)
        scores = baseline_scores(part, spec, learnt, targets)
        found = [Baseline(key, name, score) for name, score in scores.items()]
        add_rows(folder / BASELINES, found)
    return found


def _line(row: Row, done: int, of: int) -> str:
    result = row.ended or f"{row.last:.4f} after the last epoch, best {row.best:.4f}"
    return f"{row.variant}, seed {row.seed}: {result}, {row.rate:.0f} samples/s ({done} of {of})"


def read_rows(path: Path, kind: type[Made]) -> list[Made]:
    """Return the rows of a CSV file that `add_rows` wrote; none if it is not there.

    Raises:
        InputError: a line is not of this kind.
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
    """Add `rows`, all of one kind, to a CSV file; what others have added meanwhile stays."""
    whole = [*read_rows(path, type(rows[0])), *rows] if rows else []
    if not whole:
        return
    with atomic_write(path, "w") as file:
        writer = csv.DictWriter(file, list(asdict(whole[0])), lineterminator="\n")
        writer.writeheader()
        for row in whole:
            writer.writerow({
                key: f"{value:.6g}" if isinstance(value, float) else value
                for key, value in asdict(row).items()
            })  # fmt: skip
