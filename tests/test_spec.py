import json
from dataclasses import replace

import pytest

from humanpose.errors import FormatError
from humanpose.skeleton import BODY19
from humanpose.spec import ModelSpec

SPEC = ModelSpec(
    name="t",
    task="pose",
    net="lite",
    options={"joints": 19},
    skeleton=BODY19,
    input=(192, 256),
    data=("lspet", "coco"),
    licences={"code": "Apache-2.0"},
    scores={"PCK": 0.6},
)


def test_to_json_and_back():
    assert ModelSpec.from_json(SPEC.to_json()) == SPEC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": "humanpose-model/3"}',
        SPEC.to_json().replace("lite", "x", 1)[:-9],
    ],
)
def test_nonsense_is_one_clear_error(text):
    with pytest.raises(FormatError, match=r"file\.onnx: no readable model description"):
        ModelSpec.from_json(text, origin="file.onnx")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task", "cat"),
        ("grid", "edge"),
        ("decode", "x"),
        ("input", [190, 256]),
        ("tta", "upright=270"),
        ("tta", "flips"),
        ("detector_size", 200),
    ],
)
def test_a_wrong_value_is_refused(name, value):
    content = json.loads(SPEC.to_json()) | {name: value}
    with pytest.raises(FormatError, match=name):
        ModelSpec.from_json(json.dumps(content))


def test_the_format_before_is_still_read():
    content = json.loads(SPEC.to_json()) | {"format": "humanpose-model/1"}
    del content["tta"], content["detector_size"]
    old = content | {"flip": True, "second_look": 60.0}  # the graph of such a file mirrors
    assert ModelSpec.from_json(json.dumps(old)) == replace(SPEC, tta="upright=60")
    assert ModelSpec.from_json(json.dumps(content | {"second_look": 0.0})) == SPEC
    with pytest.raises(FormatError, match="tta"):
        ModelSpec.from_json(json.dumps(content | {"second_look": 270.0}))
    for text in ("flip", "scales=0.8:1:1.25,upright=45.5", "scales=demo", "upright=180"):
        assert ModelSpec.from_json(replace(SPEC, tta=text).to_json()).tta == text
