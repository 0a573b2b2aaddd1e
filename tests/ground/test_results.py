import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from humanpose.errors import FormatError, InputError, LimitError
from humanpose.results import (
    ImageIds,
    coco_annotations,
    coco_categories,
    coco_image,
    coco_results,
    csv_header,
    csv_rows,
    header,
    people_of,
    read_records,
    skeleton_of,
    to_line,
)
from humanpose.skeleton import BODY19, COCO17, FLIC9, LSP14, MPII16, SKELETONS, Skeleton
from humanpose.types import Frame, Person

NAN = float("nan")
TRIO = Skeleton("trio", ("nose", "left_hand", "right_hand"), ((0, 1), (0, 2)), ((1, 2),))


def person(**changes: Any) -> Person:
    """Three joints, the last one missing."""
    values: dict[str, Any] = {
        "joints": np.array([[1.234, 2.0], [30.126, -4.5], [NAN, NAN]], np.float32),
        "scores": np.array([0.91238, 0.25, 0], np.float32),
        "box": np.array([0.333, 1, 40.5, 60], np.float32),
        "score": 0.87654,
        "track": 7,
        "skeleton": TRIO,
    }
    return Person(**(values | changes))


def frame(*people: Person, name: str = "a.jpg", index: int = 0, time: float = 0.0) -> Frame:
    return Frame(np.zeros((5, 7, 3), np.uint8), index, time, name, people)


def written(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"".join(lines))
    return path


HEAD = header(
    TRIO, [{"name": "lite", "sha256": "ab", "runtime": "openvino", "precision": "float32"}], "a.jpg"
)

frame_record = Frame.to_dict


def test_record_of_a_frame_to_the_letter() -> None:
    got = frame_record(frame(person(), index=3, time=0.1234567))
    assert got == {
        "name": "a.jpg",
        "index": 3,
        "time": 0.123457,
        "width": 7,
        "height": 5,
        "people": [
            {
                "box": [0.33, 1.0, 40.5, 60.0],
                "score": 0.8765,
                "track": 7,
                "joints": [[1.23, 2.0, 0.9124], [30.13, -4.5, 0.25], None],
            }
        ],
    }
    assert frame(person(), index=3, time=0.1234567).to_dict() == got


def test_header_says_what_the_record_needs() -> None:
    assert HEAD["format"] == "humanpose/2" and HEAD["smoothing"] is None
    assert HEAD["skeleton"] == {
        "name": "trio",
        "joints": ["nose", "left_hand", "right_hand"],
        "limbs": [[0, 1], [0, 2]],
        "pairs": [[1, 2]],
    }
    assert header(TRIO, [], "x", {"method": "kalman"})["smoothing"] == {"method": "kalman"}


def test_no_nan_leaves_the_house() -> None:
    bad = person(
        joints=np.array([[1, NAN], [np.inf, 2], [3, 4]], np.float32),
        scores=np.array([0.5, 0.5, NAN], np.float32),
        box=np.full(4, NAN, np.float32),
        score=NAN,
        track=None,
        raw=np.array([[1, 2], [NAN, 3], [5.678, 6]], np.float32),
    )
    (got,) = json.loads(to_line(frame_record(frame(bad))))["people"]
    assert got == {
        "box": None,
        "score": 0.0,
        "track": None,
        "joints": [None, None, [3.0, 4.0, 0.0]],
        "raw": [[1.0, 2.0], None, [5.68, 6.0]],
    }
    with pytest.raises(ValueError, match="JSON"):
        to_line({"x": NAN})


number = st.floats(-1e4, 1e4, width=32)
joint = st.one_of(st.none(), st.tuples(number, number, st.floats(0, 1, width=32)))


@settings(deadline=None, max_examples=40)
@given(joints=st.lists(joint, min_size=3, max_size=3), track=st.none() | st.integers(0, 10**6))
def test_written_people_are_read_again(
    tmp_path_factory: pytest.TempPathFactory, joints: list[Any], track: int | None
) -> None:
    rows = np.array([j or (NAN, NAN, 0) for j in joints], np.float32)
    raw = rows[:, :2] + 1
    before = person(joints=rows[:, :2], scores=rows[:, 2], track=track, raw=raw)
    path = tmp_path_factory.mktemp("r") / "r.jsonl"
    written(
        path, to_line(HEAD), to_line(frame_record(frame(before))), to_line(frame_record(frame()))
    )
    head, frames = read_records(path)
    first, second = frames
    assert head == HEAD and second["people"] == []
    (after,) = people_of(first, skeleton_of(head))
    assert np.allclose(after.joints, before.joints, atol=0.0051, rtol=1e-6, equal_nan=True)
    assert np.allclose(after.raw, raw, atol=0.0051, rtol=1e-6, equal_nan=True)
    assert np.allclose(after.scores, before.scores, atol=5.1e-5)
    assert after.track == track and np.allclose(after.box, before.box, atol=0.0051)
    assert after.joints.dtype == after.scores.dtype == after.box.dtype == np.float32


@pytest.mark.parametrize("known", SKELETONS.values(), ids=lambda s: s.name)
def test_known_skeletons_come_back_whole(known: Skeleton) -> None:
    assert skeleton_of(header(known, [], "x")) is known


def test_unknown_skeleton_gets_its_pairs_from_the_names() -> None:
    assert skeleton_of(HEAD) == TRIO


def test_record_without_footer_is_partial(tmp_path: Path) -> None:
    line = to_line(frame_record(frame(person())))
    footer = {"complete": True, "frames": 1, "people": 1, "problems": []}
    _, frames = read_records(written(tmp_path / "r.jsonl", to_line(HEAD), line, to_line(footer)))
    assert frames.complete and frames.footer == footer
    assert len(list(frames)) == len(list(frames)) == 1  # they can be read again
    _, frames = read_records(written(tmp_path / "r.jsonl", to_line(HEAD), line))
    assert not frames.complete and frames.footer == {} and len(list(frames)) == 1


def test_former_format_is_read(tmp_path: Path) -> None:
    skeleton = {key: HEAD["skeleton"][key] for key in ("name", "joints", "limbs")}
    former = {"format": "humanpose/1", "skeleton": skeleton, "models": [], "source": "a.jpg"}
    line = to_line(frame_record(frame(person())))
    head, frames = read_records(written(tmp_path / "r.jsonl", to_line(former), line))
    assert skeleton_of(head) == TRIO and frames.complete and len(list(frames)) == 1


def test_torn_last_line_is_left_out(tmp_path: Path) -> None:
    line = to_line(frame_record(frame(person())))
    for cut in (1, len(line) // 2, len(line) - 2):
        _, frames = read_records(written(tmp_path / "r.jsonl", to_line(HEAD), line, line[:cut]))
        assert len(list(frames)) == 1
    _, frames = read_records(written(tmp_path / "r.jsonl", to_line(HEAD), line, line[:-1]))
    assert len(list(frames)) == 2


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"nonsense\n", "line 3: not JSON"),
        (b"[1]\n", "line 3: not a JSON object"),
        (b"\xff\xfe{}\n", "line 3: not JSON"),
        (b"[" * 100_000 + b"\n", "line 3: not JSON"),
        (to_line({"name": "a"}), "line 3: 'index' is missing"),
    ],
)
def test_nonsense_is_named_with_its_line(tmp_path: Path, line: bytes, words: str) -> None:
    good = to_line(frame_record(frame(person())))
    _, frames = read_records(written(tmp_path / "r.jsonl", to_line(HEAD), good, line, good))
    with pytest.raises(FormatError, match=f"r.jsonl, {words}"):
        list(frames)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"joints": [None]}, "1 joints instead of 3"),
        ({"joints": [None, None, [1, 2]]}, "neither null nor"),
        ({"joints": [None, None, [1, 2, "3"]]}, "neither null nor"),
        ({"joints": None}, "no joints"),
        ({"box": [1, 2, 3]}, "a box is"),
        ({"score": None}, "no score"),
    ],
)
def test_people_are_checked(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    record = frame_record(frame(person()))
    record["people"][0] |= change
    _, frames = read_records(written(tmp_path / "r.jsonl", to_line(HEAD), to_line(record)))
    with pytest.raises(FormatError, match=f"line 2: .*{words}"):
        list(frames)


def test_nan_in_a_foreign_record_is_refused(tmp_path: Path) -> None:
    line = to_line(frame_record(frame(person()))).replace(b"1.23", b"NaN")
    _, frames = read_records(written(tmp_path / "r.jsonl", to_line(HEAD), line))
    with pytest.raises(FormatError, match="NaN is not a JSON number"):
        list(frames)


def test_other_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.jsonl"
    with pytest.raises(InputError, match="does not exist"):
        read_records(path)
    for content in (b'{"format":"other"}\n', b'{"form', to_line({**HEAD, "format": "humanpose/3"})):
        with pytest.raises(FormatError, match=r"r\.jsonl is not a result record"):
            read_records(written(path, content))
    with pytest.raises(FormatError, match="skeleton is incomplete"):
        read_records(written(path, to_line({"format": "humanpose/1", "skeleton": {"name": "x"}})))
    monkeypatch.setattr("humanpose.results._MAX_LINE", 50)
    with pytest.raises(LimitError, match="line 1: longer than 50"):
        read_records(written(path, to_line(HEAD)))


def test_image_ids_come_from_numbers_or_run() -> None:
    ids = ImageIds()
    names = [
        "000000000139.jpg",
        "b.jpg",
        "2.png",
        "c.jpg",
        "139.png",
        "9" * 30 + ".jpg",
        "walk.mp4#5",
        "5.mp4#7",
        "³.jpg",
    ]
    assert [ids.next(name) for name in names] == [139, 1, 2, 3, 4, 5, 6, 7, 8]


@given(
    st.lists(st.sampled_from([f"{i}.jpg" for i in range(1, 9)] + ["x.jpg", "x/3.jpg"]), max_size=30)
)
def test_image_ids_never_repeat(names: list[str]) -> None:
    ids = ImageIds()
    given_ids = [ids.next(name) for name in names]
    assert len(set(given_ids)) == len(given_ids)


def test_coco_shape() -> None:
    record = frame_record(
        frame(person(), person(track=None, box=np.full(4, NAN, np.float32)), index=4, time=0.2)
    )
    assert coco_image(record, 9) == {
        "id": 9,
        "file_name": "a.jpg",
        "width": 7,
        "height": 5,
        "frame_index": 4,
        "time": 0.2,
    }
    first, second = coco_annotations(record, 5, 9)
    assert first == {
        "id": 5,
        "image_id": 9,
        "category_id": 1,
        "bbox": [0.33, 1.0, 40.5, 60.0],
        "area": 2430.0,
        "score": 0.8765,
        "track_id": 7,
        "num_keypoints": 2,
        "keypoints": [1.23, 2.0, 2, 30.13, -4.5, 2, 0, 0, 0],
        "keypoint_scores": [0.9124, 0.25, 0.0],
    }
    assert second["id"] == 6 and second["track_id"] is None
    assert second["bbox"] == [1.23, -4.5, 28.9, 6.5]  # of the joints, where there is no box
    assert coco_categories(TRIO) == [
        {"id": 1, "name": "person", "keypoints": list(TRIO.joints), "skeleton": [[1, 2], [1, 3]]}
    ]


@pytest.mark.parametrize("skeleton", [COCO17, BODY19, MPII16, LSP14, FLIC9], ids=lambda s: s.name)
def test_coco_results_are_in_cocos_order(skeleton: Skeleton) -> None:
    n = len(skeleton.joints)
    joints = np.stack([np.arange(n) + 1, np.arange(n) + 101], 1).astype(np.float32)
    scores = np.linspace(0.5, 1, n).astype(np.float32)
    one = person(joints=joints, scores=scores, skeleton=skeleton)
    (result,) = coco_results(frame_record(frame(one)), 12, skeleton)
    rows = np.reshape(result["keypoints"], (17, 3))
    own = ["nose" if joint == "head" else joint for joint in skeleton.joints]
    for name, row in zip(COCO17.joints, rows, strict=True):
        i = own.index(name) if name in own else None
        assert np.allclose(row, [0, 0, 0] if i is None else [*joints[i], scores[i]], atol=1e-4)
    assert result["image_id"] == 12 and result["category_id"] == 1 and result["score"] == 0.8765
    assert result["bbox"] == [0.33, 1.0, 40.5, 60.0]


def test_cocos_own_reader_takes_both_shapes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is an extra")
    one = person(
        joints=np.full((17, 2), 9, np.float32), scores=np.ones(17, np.float32), skeleton=COCO17
    )
    record = frame_record(frame(one, one))
    whole = {
        "info": {},
        "images": [coco_image(record, 1)],
        "annotations": [a | {"iscrowd": 0} for a in coco_annotations(record, 1, 1)],
        "categories": coco_categories(COCO17),
    }
    (tmp_path / "truth.json").write_text(json.dumps(whole))
    (tmp_path / "results.json").write_text(json.dumps(coco_results(record, 1, COCO17)))
    truth = coco.COCO(str(tmp_path / "truth.json"))
    found = truth.loadRes(str(tmp_path / "results.json"))
    capsys.readouterr()
    assert len(found.getAnnIds()) == 2


def test_csv_has_a_cell_for_everything() -> None:
    head = csv_header(TRIO)
    assert ",".join(head[:10]) == "name,index,time,person,track,score,box_x,box_y,box_w,box_h"
    assert head[10:13] == ["nose_x", "nose_y", "nose_score"] and len(head) == 19
    empty = person(track=None, box=np.full(4, NAN, np.float32))
    rows = csv_rows(frame_record(frame(person(), empty, name='a,"\n.jpg', index=2, time=0.5)))
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    first, second = csv.reader(io.StringIO(text.getvalue()))
    assert first[:10] == [
        'a,"\n.jpg',
        "2",
        "0.5",
        "0",
        "7",
        "0.8765",
        "0.33",
        "1.0",
        "40.5",
        "60.0",
    ]
    assert first[10:] == ["1.23", "2.0", "0.9124", "30.13", "-4.5", "0.25", "", "", ""]
    assert second[3] == "1" and second[4] == "" and second[6:10] == [""] * 4
    assert csv_rows(frame_record(frame())) == []
