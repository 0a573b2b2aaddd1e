"""humanpose bench: what is counted is what was done."""

from __future__ import annotations

import csv
import math
from dataclasses import replace

import numpy as np
import pytest

from humanpose.errors import InputError
from humanpose.infer import runtime
from humanpose.infer.options import InferenceOptions
from humanpose.infer.runtime import weights_path
from humanpose.lab import bench, bench_report

THIS = InferenceOptions(model="balanced", runtime="openvino", precision="float32", threads=2)


def test_combinations_are_the_product_of_what_is_asked():
    found = bench.combinations(
        ("balanced", "balanced+none"), sizes=(128, 256), runtimes=("openvino",), threads=(1, 2)
    )
    assert len(found) == len(set(found)) == 2 * 2 * 3 * 2  # models, sizes, precisions, threads
    assert {each.detector for each in found} == {"person", "none"}
    assert {each.model for each in found} == {"balanced"}


def test_threads_are_no_axis_of_a_gpu_and_safetensors_run_on_torch(tmp_path):
    found = bench.combinations(
        ("balanced",), runtimes=("openvino",), precisions=("float32",), devices=("gpu",)
    )
    assert [each.threads for each in found] == [None]
    weights = tmp_path / "a+b.safetensors"
    weights.touch()
    found = bench.combinations((str(weights),), threads=(1,), precisions=("bf16",))
    assert [(each.model, bench.backend(each)) for each in found] == [(str(weights), "torch")]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"models": ("nobody",)}, "nobody"),
        ({"models": ()}, "--models"),
        ({"runtimes": ("tensorrt",)}, "tensorrt"),
        ({"precisions": ("auto",)}, "auto"),
        ({"threads": (0,)}, "at least 1"),
    ],
)
def test_an_axis_that_makes_no_sense_is_one_line(changed, told):
    with pytest.raises(InputError, match=told):
        bench.combinations(**{"models": ("balanced",)} | changed)


@pytest.mark.parametrize("name", ["balanced", "person"])
def test_the_graphs_count_of_macs_is_that_of_the_torch_network(name):
    nets = pytest.importorskip("humanpose.nets")
    path = weights_path(name)
    spec = runtime.read_spec(path)
    for size in (spec.input, (spec.input[0] + spec.multiple_of, spec.input[1])):
        assert bench.macs(path, size) == nets.macs(spec.net, size, **spec.options)


def test_macs_of_transposed_and_grouped_convolutions_and_products():
    import openvino.opset13 as ops

    image = ops.parameter([1, 8, 5, 7], np.float32)
    weights = ops.constant(np.zeros((8, 6, 4, 4), np.float32))
    node = ops.convolution_backprop_data(image, weights, [2, 2])
    assert bench.macs_of_node(node) == 8 * 6 * 16 * 5 * 7  # of the input's cells
    weights = ops.constant(np.zeros((8, 1, 1, 3, 3), np.float32))
    node = ops.group_convolution(image, weights, [1, 1], [1, 1], [1, 1], [1, 1])
    assert bench.macs_of_node(node) == 8 * 9 * 5 * 7
    a, b = ops.parameter([3, 4], np.float32), ops.parameter([3, 5], np.float32)
    assert bench.macs_of_node(ops.matmul(a, b, True, False)) == 4 * 3 * 5
    assert bench.macs_of_node(ops.relu(image)) == 0


def _round(scale: float, people=(0, 0, 0, 1, 2), start: float = 1.0) -> dict:
    """A round of frames whose detector takes 10 ms, a person 20, and the rest 5."""
    frames = [(n, scale * (15 + 20 * n), scale * 10, scale * 20 * n) for n in people]
    pose = {"input": "192x256", "gmac": 0.3, "precision": "int8"}
    detector = {"input": "320x320", "gmac": 0.1, "precision": "float32"}
    return {
        "frames": frames,
        "start": start,
        "memory": 2**28,
        "networks": {"pose": pose, "detector": detector},
    }


def test_every_column_is_about_the_same_frames():
    """The 2018 test bench left frames without people out of its pose column alone."""
    rounds = [_round(1.0, start=4.0), _round(3.0, start=2.0), _round(1.5)]
    row = bench.Row(THIS, figures=bench.summary(rounds))
    assert [row[f"frames_{n}"] for n in ("0", "1", "more")] == [3, 1, 1]
    # Of the middle round:
    assert [row[f"{part}_ms"] for part in ("detector", "pose", "full")] == [15, 0, 22.5]
    assert (row["pose_1_ms"], row["pose_more_ms"]) == (30, 60)
    assert row["full_ms"] >= row["detector_ms"] + row["pose_ms"]
    assert (row["full_low_ms"], row["full_high_ms"]) == (15, 45)
    assert row["pose_p95_ms"] == pytest.approx(1.5 * np.percentile([0, 0, 0, 20, 40], 95))
    assert (row["start_cold_s"], row["start_warm_s"]) == (4, 1.5)
    assert row["frames_per_s"] == pytest.approx(1e3 / (1.5 * 27))
    assert row["memory_mib"] == 256 and row.figures["pose_input"] == "192x256"


def test_the_table_says_what_each_network_computed_in():
    row = bench.Row(replace(THIS, precision="int8"), figures=bench.summary([_round(1.0)]))
    (line,) = list(bench_report.markdown([row], []))[2:]
    assert "| int8, detector float32 |" in line


def test_a_network_alone_has_no_detector_to_tell_of():
    result = _round(1.0, people=(1, 1))
    del result["networks"]["detector"]
    row = bench.Row(replace(THIS, detector="none"), figures=bench.summary([result]))
    assert all(math.isnan(row[n]) for n in ("detector_ms", "detector_gmac", "start_warm_s"))
    assert row["pose_ms"] == 20


def _row(threads: int, full: float, spread: float = 0.0, **changed) -> bench.Row:
    score = changed.pop("score", None)
    figures = {"full_ms": full, "full_low_ms": full - spread, "full_high_ms": full + spread}
    return bench.Row(
        replace(THIS, threads=threads, **changed),
        figures=figures | {"pose_input": "192x256"},
        scores={} if score is None else {"lspet": ("PCK@0.2 torso", score)},
    )


def test_threads_are_the_physical_cores_unless_measured_otherwise():
    within = bench_report.recommend([_row(1, 10, 1), _row(2, 11, 1), _row(4, 12, 1)], 2)
    assert "--threads 2" in within and "threads = physical cores" in within
    beyond = bench_report.recommend([_row(1, 10, 1), _row(2, 13, 1)], 2)
    assert "--threads 1" in beyond and "faster than the 2 physical cores" in beyond
    alone = bench_report.recommend([_row(1, 10, 1)], 2)
    assert "the 2 physical cores were not measured" in alone


def test_speed_may_cost_a_point_and_no_more():
    rows = [
        _row(2, 20, precision="float32", score=0.700),
        _row(2, 10, precision="bf16", score=0.692),
        _row(2, 5, size=128, score=0.600),
    ]
    line = bench_report.recommend(rows, 2)
    assert "--precision bf16" in line and "score 69.2 %" in line and "--size" not in line
    assert "--size 128" in bench_report.recommend([replace(row, scores={}) for row in rows], 2)


def test_what_cannot_run_is_a_row_that_says_why():
    broken = bench.Row(replace(THIS, precision="bf16"), why="no bf16 | here")
    rows = [_row(2, 20, score=0.5), broken]
    lines = list(bench_report.markdown(rows, ["lspet"]))
    assert "cannot run: no bf16 / here" in lines[-1]
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    table = list(csv.DictReader(bench_report.as_csv(rows, ["lspet"]).splitlines()))
    assert [row["why_not"] for row in table] == ["", "no bf16 | here"]
    assert table[0]["lspet_score"] == "50.0" and table[1]["lspet_score"] == ""
    assert table[1]["full_ms"] == "" and table[0]["full_ms"] == "20"
    assert "nothing" in bench_report.recommend([broken], 2)


def test_a_process_that_dies_is_a_row_too(monkeypatch):
    monkeypatch.setattr(bench.sys, "executable", "false")
    (row,) = bench.measure([THIS], bench.Protocol("", 1, 2))
    assert row.why == "the process ended with code 1: it said nothing"


def test_scores_are_those_of_evaluate_and_threads_share_them(data, monkeypatch):
    from humanpose.data.readers import read
    from humanpose.evaluate import run, scores

    path = data / "lspet"
    samples = [each for each in read("lspet", path) if each.split == "validation"][:8]
    few = scores.Truth.of(samples, name="lspet", path=path, split="validation", whole=samples)
    monkeypatch.setattr(run, "read_all", lambda *_: ([few], {}))
    wanted = [
        replace(THIS, threads=1),
        THIS,
        replace(THIS, size=96),
        replace(THIS, runtime="onnxruntime", precision="bf16"),
    ]
    told: list[str] = []
    found = bench.score(wanted, ["lspet"], "validation", told.append)
    network = run.load_network("balanced", replace(THIS, cache=""))
    own = scores.Comparison(run.matched_on(few, network), few).scores[0]
    assert found[wanted[0]] == found[wanted[1]] == {"lspet": (own.rule, own.value)}
    assert found[wanted[2]] != found[wanted[1]]
    assert found[wanted[3]] == {} and len(told) == 3


def test_bench_from_end_to_end(cli, data, tmp_path):
    arguments = ("bench", "--threads", "1", "--sizes", "96", "--frames", "3", "--rounds", "2")
    walkers = data / "videos" / "walkers.mp4"  # begins with nobody there
    code, out, _ = cli(*arguments, "--video", walkers, "-o", tmp_path)
    assert code == 0 and out.splitlines()[-1].startswith("recommended: --model balanced")
    rows = list(csv.DictReader((tmp_path / "bench.csv").read_text().splitlines()))
    assert [(row["runtime"], row["precision"]) for row in rows] == [
        ("openvino", "float32"), ("openvino", "bf16"), ("openvino", "int8"),
        ("onnxruntime", "float32"), ("onnxruntime", "bf16"), ("onnxruntime", "int8"),
    ]  # fmt: skip
    first = rows[0]
    assert (first["frames_0"], first["frames_1"]) == ("3", "0")
    assert (
        float(first["pose_ms"]) == 0 and float(first["full_ms"]) > float(first["detector_ms"]) > 0
    )
    assert float(first["memory_mib"]) > 50 and float(first["start_cold_s"]) > 0
    assert float(first["pose_gmac"]) > 0.1 and float(first["detector_gmac"]) > 0.01
    assert rows[4]["why_not"]  # ONNX Runtime has no bf16, or is not installed
    assert (tmp_path / "time_by_size.png").read_bytes().startswith(b"\x89PNG")
    assert "walkers.mp4" in (tmp_path / "bench.md").read_text()
    assert cli(*arguments, "--video", walkers, "-o", tmp_path)[0] == 74


def test_bench_without_a_video_says_so(cli, tmp_path):
    options = ("--threads", "1", "--frames", "2", "--rounds", "1", "--runtimes", "openvino")
    code, out, _ = cli("bench", *options, "--precisions", "float32", "--no-plots", "-o", tmp_path)
    assert code == 0 and "made-up picture" in out
    assert {path.name for path in tmp_path.iterdir()} == {"bench.md", "bench.csv"}
    (row,) = csv.DictReader((tmp_path / "bench.csv").read_text().splitlines())
    assert row["frames_1"] == "2" and float(row["pose_ms"]) > 0


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (("--video", "nowhere.mp4"), "nowhere.mp4"),
        (("--sizes", "1.5"), "whole numbers"),
        (("--data", "lspet=nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_had_ends_bench_before_it_measures(cli, tmp_path, option, told, monkeypatch):
    monkeypatch.setattr(bench, "measure", lambda *_: pytest.fail("it measured"))
    code, _, err = cli("bench", *option, "-o", tmp_path)
    assert code == 2 and told in err and len(err.splitlines()) == 1
