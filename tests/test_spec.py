import json

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
        '{"format": "humanpose-model/2"}',
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
        ("second_look", 270),
    ],
)
def test_a_wrong_value_is_refused(name, value):
    content = json.loads(SPEC.to_json()) | {name: value}
    with pytest.raises(FormatError, match=name):
        ModelSpec.from_json(json.dumps(content))
