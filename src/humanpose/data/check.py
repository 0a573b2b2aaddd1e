"""What a data set holds, what it lacks and what looks wrong in it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from humanpose.data.pack import PackedSample, image_of
from humanpose.errors import InputError
from humanpose.images import image_size
from humanpose.types import F32, Sample

_MARGIN = 0.02  # of a picture's longer side that a joint may lie outside
_TINY = 16.0  # pixels of a box's longer side
# Shoulders and hips that point against each other: cosine, and least length of both lines as a
# share of the torso's, or a person seen from the side would be suspected.
_OPPOSITE, _BROAD = -0.5, 0.25

Progress = Callable[[Sequence[Path]], Iterable[Path]]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something missing or odd.

    Attributes:
        level: "error": training or scoring would go wrong or fail; "warning": look at it.
        what: it is, for a user.
        where: the persons ("picture: identifier") or pictures concerned.
        of: how many there are in all.
    """

    level: str
    what: str
    where: tuple[str, ...]
    of: int


def summary(samples: Sequence[Sample]) -> dict[str, Any]:
    """Persons, pictures and annotated joints of each split, and the annotated joints by name."""
    parts: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        parts[sample.split].append(sample)
    counts: Counter[str] = Counter()
    for sample in samples:  # a pack may hold several skeletons
        counts.update(dict(zip(sample.skeleton.joints, (sample.visible > 0).tolist(), strict=True)))
    return {
        "skeleton": ", ".join(sorted({sample.skeleton.name for sample in samples})),
        "splits": {
            split: {
                "persons": len(part),
                "pictures": len({_original(sample) for sample in part}),
                "joints": int(sum((sample.visible > 0).sum() for sample in part)),
            }
            for split, part in sorted(parts.items())
        },
        "joints": dict(counts),
    }


def findings(
    samples: Sequence[Sample], *, pictures: bool = False, progress: Progress = iter
) -> list[Finding]:
    """Everything missing or odd in a data set, errors first.

    Args:
        samples: of one data set.
        pictures: decode every picture; else only its header is read.
        progress: wraps the paths of the pictures.
    """
    sizes, found = _pictures(samples, pictures, progress)
    found += [*_duplicates(samples), *_heads(samples)]
    persons = (
        ("no joint is annotated", [s for s in samples if not (s.visible > 0).any()]),
        ("a joint lies outside the picture", [s for s in samples if _outside(s, sizes)]),
        ("left and right are likely swapped", [s for s in samples if swapped(s)]),
        (f"the box is under {_TINY:g} px", [s for s in samples if not s.box[2:].max() >= _TINY]),
    )
    found += [Finding("warning", what, _persons(odd), len(samples)) for what, odd in persons if odd]
    return sorted(found, key=lambda finding: finding.level)


def _original(sample: Sample) -> Path:
    """The picture that a person was annotated in; not a file where it lies in a pack."""
    if isinstance(sample, PackedSample):
        return Path(sample.origin[0], sample.name)
    return sample.picture


def _persons(samples: Iterable[Sample]) -> tuple[str, ...]:
    return tuple(f"{sample.picture.name}: {sample.origin[1]}" for sample in samples)


def _pictures(
    samples: Sequence[Sample], whole: bool, progress: Progress
) -> tuple[dict[Path, tuple[int, int]], list[Finding]]:
    """(width, height) of every picture that can be read, and the others."""
    paths = {sample.picture: sample for sample in samples}
    sizes: dict[Path, tuple[int, int]] = {}
    missing, damaged = [], []
    for path in progress(sorted(paths)):
        sample = paths[path]
        try:
            if isinstance(sample, PackedSample):
                sizes[path] = sample.crop.size
            elif path.is_file():
                sizes[path] = image_size(path)
            else:
                missing.append(str(path))
                continue
            if whole:
                image_of(sample)
        except InputError as error:
            damaged.append(str(error))
    found = []
    if missing:
        # Annotations without any picture are of use: predictions can be scored against them.
        level = "error" if len(missing) < len(paths) else "warning"
        found.append(Finding(level, "the picture is not there", tuple(missing), len(paths)))
    if damaged:
        found.append(Finding("error", "the picture is unreadable", tuple(damaged), len(paths)))
    return sizes, found


def _duplicates(samples: Sequence[Sample]) -> Iterable[Finding]:
    names = Counter(sample.origin for sample in samples)
    twice = [sample for sample in samples if names[sample.origin] > 1]
    if twice:
        yield Finding("error", "the identifier comes twice", _persons(twice), len(samples))
    same: set[tuple[Path, bytes]] = set()
    copies = []
    for sample in samples:
        key = (sample.picture, sample.joints.tobytes())
        if (sample.visible > 0).any() and key in same:
            copies.append(sample)
        same.add(key)
    if copies:
        what = "the person comes twice in its picture"
        yield Finding("warning", what, _persons(copies), len(samples))
    splits: dict[Path, set[str]] = defaultdict(set)
    files: dict[str, set[Path]] = defaultdict(set)
    for sample in samples:
        picture = _original(sample)
        splits[picture].add(sample.split)
        files[picture.name].add(picture)
    torn = tuple(str(path) for path, parts in splits.items() if len(parts) > 1)
    if torn:
        yield Finding("warning", "the picture is in two splits", torn, len(splits))
    alike = tuple(name for name, paths in files.items() if len(paths) > 1)
    if alike:
        yield Finding("warning", "two pictures have this name", alike, len(splits))


def _heads(samples: Sequence[Sample]) -> Iterable[Finding]:
    """Head sizes that would spoil a PCKh; a set that has none at all is left alone."""
    sizes = np.array([sample.head_size for sample in samples])
    if np.isnan(sizes).all():
        return
    for level, what, bad in (
        ("error", "the head size is not above zero", sizes <= 0),
        ("warning", "the head size is not known", np.isnan(sizes)),
    ):
        if bad.any():
            persons = _persons(samples[i] for i in np.flatnonzero(bad).tolist())
            yield Finding(level, what, persons, len(samples))


def _outside(sample: Sample, sizes: dict[Path, tuple[int, int]]) -> bool:
    """Whether a joint lies over 2 % of the longer side outside the picture."""
    if sample.picture not in sizes:
        return False
    size = np.array(sizes[sample.picture])
    margin = _MARGIN * size.max()
    return bool(((sample.joints < -margin) | (sample.joints > size - 1 + margin)).any())


def swapped(sample: Sample) -> bool:
    """Whether left and right of shoulders or hips are likely exchanged.

    The lines right - left shoulder and right - left hip point against each other (cosine under
    -0.5) and both are over a quarter of the torso's length: nobody can turn so far at the waist.
    Whole bodies labelled the wrong way round do not show in this.
    """
    names = ("left_shoulder", "right_shoulder", "left_hip", "right_hip")
    if any(name not in sample.skeleton.joints for name in names):
        return False
    corners = [np.asarray(sample.joints[sample.skeleton.index(name)], float) for name in names]
    shoulders, hips = corners[0] - corners[1], corners[2] - corners[3]
    torso = _length((corners[0] + corners[1] - corners[2] - corners[3]) / 2)
    lengths = _length(shoulders), _length(hips)
    opposite = shoulders @ hips < _OPPOSITE * lengths[0] * lengths[1]
    return bool(opposite and min(lengths) > _BROAD * torso)  # False for NaN


def _length(line: NDArray[np.float64] | F32) -> float:
    return float(np.hypot(*line))
