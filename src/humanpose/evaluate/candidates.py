"""What `humanpose evaluate` compares, and on what: files of predictions, networks, data sets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from humanpose.data.readers import read
from humanpose.data.sets import Marks, data_path, part_of
from humanpose.errors import InputError
from humanpose.evaluate.predictions import SUFFIXES, Matched, Predictions, match, read_predictions
from humanpose.evaluate.run import FLOOR, Result, floor, judge
from humanpose.evaluate.scores import Progress, Rules, Truth, estimated, person_scores
from humanpose.evaluate.unscored import Unscored, read_unscored
from humanpose.files import sha256
from humanpose.infer.options import InferenceOptions
from humanpose.types import Sample, Score

if TYPE_CHECKING:
    from humanpose.infer.options import InferenceOptions
    from humanpose.infer.runtime import Runtime
    from humanpose.spec import ModelSpec


@dataclass(frozen=True, slots=True, eq=False)
class DataSet:
    """A data set's part to score on.

    Attributes:
        name: as given on the command line.
        path: where it lies.
        split: which part, or "all".
        samples: of the part.
        whole: all of the set's samples.
        rest: see Truth.
    """

    name: str
    path: Path
    split: str
    samples: list[Sample]
    whole: list[Sample]
    rest: dict[str, list[Unscored]]


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A file of predictions or a network.

    Attributes:
        label: what it is called in tables.
        about: what a report says of it.
        predictions: of the file, or None.
        network: loaded, or None.
        options: how the network is applied to a box.
    """

    label: str
    about: dict[str, Any]
    predictions: Predictions | None = None
    network: tuple[Runtime, ModelSpec] | None = None
    options: InferenceOptions = field(default_factory=InferenceOptions)


def is_file_of_predictions(entry: str) -> bool:
    """Whether a candidate is a file of predictions, and no network, by its suffix."""
    return Path(entry).suffix.lower() in SUFFIXES


def read_all(
    data: Sequence[str], entries: Sequence[str], split: str, rules: Rules
) -> tuple[list[DataSet], dict[str, Candidate]]:
    """The data sets, and the candidates that are files; all are read at the same time.

    Raises:
        InputError and its children: as the readers say; a set that is named twice.
    """
    places = [data_path(entry) for entry in data]
    names = [name for name, _ in places]
    if len(set(names)) < len(names):
        raise InputError("--against: name each data set once")
    files = [entry for entry in dict.fromkeys(entries) if is_file_of_predictions(entry)]
    # Foreign files are parsed in child processes: threads are enough to run those side by side.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sets = [pool.submit(_read_set, name, path, split, rules) for name, path in places]
        found = [pool.submit(read_predictions, Path(entry)) for entry in files]
        people = [future.result() for future in found]
        return [future.result() for future in sets], {
            entry: Candidate(Path(entry).stem, {"file": entry, "sha256": sha256(entry)}, each)
            for entry, each in zip(files, people, strict=True)
        }


def _read_set(name: str, path: Path, split: str, rules: Rules) -> DataSet:
    # The CPM release labels and scores FLIC by the picture's left and right.
    quirk = "cpm" if name == "flic" and rules.compat == "cpm-flic" else ""
    whole = read(name, path, compat=quirk)
    rest = read_unscored(path, split) if name == "coco" and "ap" in rules.scores else {}
    return DataSet(name, path, split, part_of(whole, split, name), whole, rest)


def load_network(entry: str, options: InferenceOptions) -> Candidate:
    """The candidate `entry`, a network by built-in name or file, to be applied with `options`."""
    from humanpose.api import load_model

    loaded, spec, path = load_model(entry, options, options.size)
    changed = {name: getattr(options, name) for name in ("tta", "crop", "decode", "compat")}
    about = {
        "model": spec.name,
        "file": str(path),
        "sha256": sha256(path),
        "runtime": loaded.name,
        "precision": loaded.precision,
        "input": list(spec.input),
        "procedure": ", ".join(f"{name} {value}" for name, value in changed.items() if value),
    }
    return Candidate(spec.name, about, network=(loaded, spec), options=options)


def labelled(entries: Sequence[str], candidates: dict[str, Candidate]) -> dict[str, Candidate]:
    """Candidates by label; those that share one go by what was given on the command line."""
    labels = [candidate.label for candidate in candidates.values()]
    found = {}
    for entry in dict.fromkeys(entries):
        label = candidates[entry].label
        found[entry if labels.count(label) > 1 or label == FLOOR else label] = candidates[entry]
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """All candidates on one data set.

    Attributes:
        data: the set.
        truth: its persons.
        results: by label; the floor last, where joints are scored.
        floor: how the floor was made.
    """

    data: DataSet
    truth: Truth
    results: dict[str, Result]
    floor: str


def outcome_on(
    data: DataSet,
    candidates: dict[str, Candidate],
    rules: Rules,
    marks: Marks,
    progress: Progress[Any] = iter,
) -> Outcome:
    """Score all `candidates` on `data`; `marks` are places that detection scores ignore.

    Raises:
        InputError: if predictions do not fit the set, or the set has no truth for a score.
    """
    truth = Truth.of(data.samples, data.rest)
    found: dict[str, tuple[Matched, Predictions | None]] = {}
    results: dict[str, Result] = {}
    for label, candidate in candidates.items():
        if candidate.network is not None and candidate.network[1].task == "person":
            results[label] = Result(_person_scores(candidate, data, rules, marks, progress))
        else:
            found[label] = (matched_on(data, candidate, progress), candidate.predictions)
    how = ""
    if found:
        lowest, how = floor(truth)
        found[FLOOR] = (lowest, None)
        results |= judge(found, truth, rules)
    order = [label for label in (*candidates, FLOOR) if label in results]
    return Outcome(data, truth, {label: results[label] for label in order}, how)


def matched_on(data: DataSet, candidate: Candidate, progress: Progress[Any] = iter) -> Matched:
    """The candidate's joints of each person; a network gets the annotated boxes."""
    if candidate.predictions is not None:
        return match(candidate.predictions, data.samples, data.whole)
    from humanpose.infer.topdown import TopDown

    assert candidate.network is not None
    estimator = TopDown(*candidate.network, candidate.options)
    return estimated(estimator, data.samples, progress=progress)


def _person_scores(
    candidate: Candidate, data: DataSet, rules: Rules, marks: Marks, progress: Progress[Any]
) -> list[Score]:
    from humanpose.data.detection import pictures_of
    from humanpose.infer.detector import Detector

    assert candidate.network is not None
    least = rules.thresholds[0] if rules.thresholds else None
    detector = Detector(*candidate.network, threshold=least)
    return person_scores(detector, pictures_of(data.samples, marks), progress=progress)
