"""Check a data set: count its persons, find missing and unusual annotations."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from humanpose.data.pack import PackedSample, has_picture, image_of
from humanpose.errors import InputError
from humanpose.images import image_size
from humanpose.types import Sample

_MARGIN = 0.02  # of a picture's longer side that a joint may lie outside
_TINY = 16.0  # pixels of a box's longer side
# Shoulders and hips that point against each other: cosine, and least length of both lines as a
# share of the torso's, or a person seen from the side would be suspected.
_OPPOSITE, _BROAD = -0.5, 0.25

Progress = Callable[[Sequence[Path]], Iterable[Path]]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something missing or odd."""

    level: str  # "error": training or scoring would go wrong or fail; "warning": check it
    what: str
    where: tuple[str, ...]  # the persons ("picture: identifier") or pictures concerned
    of: int  # how many there are in all


def summary(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return persons, pictures and joints of each split, and the annotated joints by name."""
    parts: dict[str, list[Sample]] = defaultdict(list)
    counts: Counter[str] = Counter()
    for sample in samples:  # a pack may hold several skeletons
        parts[sample.split].append(sample)
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
    """Return everything missing or odd in a data set, errors first.

    With `pictures` every picture is decoded, else only its header is read; `progress` wraps their
    paths.
    """
    sizes, found = _pictures(samples, pictures, progress)
    origins = Counter(sample.origin for sample in samples)
    first: dict[tuple[Path, bytes], Sample] = {}
    for sample in samples:
        first.setdefault((sample.picture, sample.joints.tobytes()), sample)
    has_heads = any(not np.isnan(sample.head_size) for sample in samples)

    def again(sample: Sample) -> bool:
        same = first[sample.picture, sample.joints.tobytes()]
        return same is not sample and bool(sample.visible.any())

    rules: tuple[tuple[str, str, Callable[[Sample], object]], ...] = (
        ("error", "the identifier comes twice", lambda s: origins[s.origin] > 1),
        ("error", "the head size is not above zero", lambda s: s.head_size <= 0),
        ("warning", "the head size is not known", lambda s: has_heads and np.isnan(s.head_size)),
        ("warning", "no joint is annotated", lambda s: not (s.visible > 0).any()),
        ("warning", "a joint lies outside the picture", lambda s: _outside(s, sizes)),
        ("warning", "left and right are likely swapped", swapped),
        ("warning", f"the box is under {_TINY:g} px", lambda s: not s.box[2:].max() >= _TINY),
        ("warning", "the person comes twice in its picture", again),
    )
    for level, what, odd in rules:
        where = tuple(f"{s.picture.name}: {s.origin[1]}" for s in samples if odd(s))
        found.append(Finding(level, what, where, len(samples)))
    return sorted((f for f in found if f.where), key=lambda finding: finding.level)


def _original(sample: Sample) -> Path:
    """Return the picture that a person was annotated in; not a file where it lies in a pack."""
    if isinstance(sample, PackedSample):
        return Path(sample.origin[0], sample.name)
    return sample.picture


def _pictures(
    samples: Sequence[Sample], whole: bool, progress: Progress
) -> tuple[dict[Path, tuple[int, int]], list[Finding]]:
    """Return (width, height) of every picture that can be read, and what is odd about pictures."""
    paths = {sample.picture: sample for sample in samples}
    sizes: dict[Path, tuple[int, int]] = {}
    missing, damaged = [], []
    for path in progress(sorted(paths)):
        sample = paths[path]
        if not has_picture(sample):
            missing.append(str(path))
            continue
        try:
            packed = isinstance(sample, PackedSample) and sample.crop.size
            sizes[path] = packed or image_size(path)
            if whole:
                image_of(sample)
        except InputError as error:
            damaged.append(str(error))
    splits: dict[Path, set[str]] = defaultdict(set)
    files: dict[str, set[Path]] = defaultdict(set)
    for sample in samples:
        picture = _original(sample)
        splits[picture].add(sample.split)
        files[picture.name].add(picture)
    torn = [str(path) for path, parts in splits.items() if len(parts) > 1]
    alike = [name for name, pictures in files.items() if len(pictures) > 1]
    # Annotations without any picture are of use: predictions can be scored against them.
    level = "error" if len(missing) < len(paths) else "warning"
    return sizes, [
        Finding(level, "the picture is not there", tuple(missing), len(paths)),
        Finding("error", "the picture is unreadable", tuple(damaged), len(paths)),
        Finding("warning", "the picture is in two splits", tuple(torn), len(splits)),
        Finding("warning", "two pictures have this name", tuple(alike), len(splits)),
    ]


def _outside(sample: Sample, sizes: dict[Path, tuple[int, int]]) -> bool:
    """Return whether a joint lies over 2 % of the longer side outside the picture."""
    size = np.array(sizes.get(sample.picture, (np.inf, np.inf)))
    margin = _MARGIN * size.max()
    return bool(((sample.joints < -margin) | (sample.joints > size - 1 + margin)).any())


def swapped(sample: Sample) -> bool:
    """Return whether left and right of shoulders or hips are likely exchanged.

    The lines right - left shoulder and right - left hip point against each other (cosine under
    -0.5) and both are over a quarter of the torso's length: no person can turn so far at the waist.
    Whole bodies labelled the wrong way round do not show in this.
    """
    names = ("left_shoulder", "right_shoulder", "left_hip", "right_hip")
    if not set(names) <= set(sample.skeleton.joints):
        return False
    corners = [sample.joints[sample.skeleton.index(name)].astype(float) for name in names]
    shoulders, hips = corners[0] - corners[1], corners[2] - corners[3]
    torso = np.hypot(*(corners[0] + corners[1] - corners[2] - corners[3]) / 2)
    lengths = np.hypot(*shoulders), np.hypot(*hips)
    opposite = shoulders @ hips < _OPPOSITE * lengths[0] * lengths[1]
    return bool(opposite and min(lengths) > _BROAD * torso)  # False for NaN
