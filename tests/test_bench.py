"""humanpose bench and predict --profile: what is counted is what was done."""

from __future__ import annotations

import csv
import math
from dataclasses import replace

import numpy as np
import pytest

from humanpose.errors import InputError
from humanpose.infer import profile as profiling
from humanpose.infer import runtime
from humanpose.infer.catalog import weights_path
from humanpose.infer.options import InferenceOptions
from humanpose.infer.profile import Profile, phase, timed
from humanpose.lab.bench import peak, plan, report, runs
from humanpose.lab.bench.multiplies import _of_node, multiplies

THIS = plan.Combination("balanced", "person", None, "openvino", "float32", 2)


@pytest.fixture
def clock(monkeypatch):
    """The profile's clock; the test moves it."""

    class Clock:
        now = 100.0

        def tick(self, seconds: float) -> None:
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(profiling.time, "perf_counter", lambda: clock.now)
    return clock


def test_an_inner_phase_is_not_the_outer_ones_time(clock):
    profile = Profile()
    with profile.running():
        clock.tick(1)
        with phase(profile, profiling.TRACKING):
            clock.tick(2)
            with phase(profile, profiling.NETWORK):
                clock.tick(5)
            clock.tick(1)
        with phase(profile, profiling.TRACKING):
            clock.tick(1)
    by_phase = {name: seconds for (_, name), seconds in profile.seconds.items()}
    assert by_phase == {profiling.TRACKING: 4, profiling.NETWORK: 5}
    assert profile.wall == 10


def test_the_shares_of_a_thread_make_the_whole_and_waiting_is_not_counted_twice(clock):
    profile = Profile()

    def source():
        for i in range(4):
            clock.tick(2)
            yield i

    with profile.running():
        due = timed(source(), profile, profiling.WAITING)

        def smoothed():
            for item in due:
                clock.tick(0.5)
                yield item

        for _ in timed(smoothed(), profile, profiling.SMOOTHING):
            with phase(profile, profiling.WRITING):
                clock.tick(1)
            clock.tick(0.25)  # nobody's
    lines = profile.table(4).splitlines()
    cells = {line[11:31].strip(): line[31:].split() for line in lines[2:-1]}
    assert cells == {
        "smoothing": ["500.00", "13.3%"],
        "drawing, writing": ["1000.00", "26.7%"],
        "waiting": ["2250.00", "60.0%"],
    }
    assert "4 frames in 15.00 s, 3750.00 ms a frame" in lines[0]
    assert lines[-1].endswith(": main")


def test_nothing_is_wrapped_where_nobody_asked():
    items = [1, 2]
    assert timed(items, None, profiling.READING) is items
    assert phase(None, profiling.READING) is phase(None, profiling.WRITING)


def test_leaving_a_timed_loop_closes_what_it_runs_over():
    closed = []

    def source():
        try:
            yield from range(9)
        finally:
            closed.append(True)

    for _ in timed(source(), Profile(), profiling.READING):
        break
    assert closed == [True]


def test_predict_profile_names_every_phase_of_a_video(cli, data, tmp_path):
    video = data / "videos" / "dance.mp4"
    options = ("-o", tmp_path, "--frames", "4", "--smoothing", "kalman", "--save", "jsonl")
    code, out, _ = cli("predict", video, *options, "--profile")
    assert code == 0 and "where the time goes: 4 frames" in out
    for name in profiling._ORDER:
        assert name in out, name
    plain = cli("predict", video, *options, "--force")
    assert plain[0] == 0 and "where the time goes" not in plain[1]


def test_predict_profile_of_pictures(cli, noise_picture, tmp_path):
    _, out, _ = cli(
        "predict", noise_picture, "-o", tmp_path / "o", "--profile", "--detector", "none"
    )
    for name in ("reading, decoding", "crops", "network", "decoding of maps", "drawing, writing"):
        assert name in out
    assert "tracking" not in out and "detector" not in out


def test_combinations_are_the_product_of_what_is_asked():
    axes = plan.Axes(
        ("balanced", "balanced+none"), sizes=(128, 256), runtimes=("openvino",), threads=(1, 2)
    )
    found = plan.combinations(axes)
    assert len(found) == len(set(found)) == 2 * 2 * 3 * 2  # models, sizes, precisions, threads
    assert {each.person for each in found} == {"person", "none"}
    assert {each.model for each in found} == {"balanced"}


def test_threads_are_no_axis_of_a_gpu_and_safetensors_run_on_torch(tmp_path):
    axes = plan.Axes(
        ("balanced",), runtimes=("openvino",), precisions=("float32",), devices=("gpu",)
    )
    assert [each.threads for each in plan.combinations(axes)] == [None]
    weights = tmp_path / "a+b.safetensors"
    weights.touch()
    found = plan.combinations(plan.Axes((str(weights),), threads=(1,), precisions=("bf16",)))
    assert [(each.model, each.runtime) for each in found] == [(str(weights), "torch")]


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
        plan.combinations(plan.Axes(**{"models": ("balanced",)} | changed))


@pytest.mark.parametrize("name", ["balanced", "person"])
def test_the_graphs_count_of_multiplies_is_that_of_the_torch_network(name):
    nets = pytest.importorskip("humanpose.nets")
    path = weights_path(name)
    spec = runtime.read_spec(path)
    for size in (spec.input, (spec.input[0] + spec.multiple_of, spec.input[1])):
        assert multiplies(path, size) == nets.multiplies(spec.net, size, **spec.options)


def test_multiplies_of_transposed_and_grouped_convolutions_and_products():
    import openvino.opset13 as ops

    image = ops.parameter([1, 8, 5, 7], np.float32)
    weights = ops.constant(np.zeros((8, 6, 4, 4), np.float32))
    node = ops.convolution_backprop_data(image, weights, [2, 2])
    assert _of_node(node) == 8 * 6 * 16 * 5 * 7  # of the input's cells
    weights = ops.constant(np.zeros((8, 1, 1, 3, 3), np.float32))
    node = ops.group_convolution(image, weights, [1, 1], [1, 1], [1, 1], [1, 1])
    assert _of_node(node) == 8 * 9 * 5 * 7
    a, b = ops.parameter([3, 4], np.float32), ops.parameter([3, 5], np.float32)
    assert _of_node(ops.matmul(a, b, True, False)) == 4 * 3 * 5
    assert _of_node(ops.relu(image)) == 0


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("kernel", peak.CHAINS)
def test_the_chain_is_onnx_and_as_much_work_as_it_says(kernel, int8, tmp_path):
    path = tmp_path / "chain.onnx"
    path.write_bytes(peak.chain(kernel, int8=int8))
    onnx = pytest.importorskip("onnx")
    onnx.checker.check_model(onnx.load(path), full_check=True)
    assert multiplies(path, (32, 32)) == peak.multiplies(kernel)
    assert runtime.read_spec(path).precision == ("int8" if int8 else "float32")


@pytest.mark.parametrize("kernel", peak.CHAINS)
def test_both_back_ends_compute_the_same_chain(kernel, tmp_path):
    pytest.importorskip("onnxruntime")
    crop = np.random.default_rng(1).integers(0, 256, (1, 32, 32, 3), np.uint8)
    found = {}
    for int8 in (False, True):
        path = tmp_path / f"{int8}.onnx"
        path.write_bytes(peak.chain(kernel, int8=int8))
        for name in ("openvino", "onnxruntime"):
            settings = InferenceOptions(runtime=name, precision="float32", cache="")
            found[name, int8] = runtime.load(path, settings)[0].run(crop)["maps"].ravel()
    reach = np.abs(found["openvino", False]).max()
    assert reach > 0.1
    assert np.abs(found["openvino", False] - found["onnxruntime", False]).max() < 1e-3 * reach
    # Quantised, the same products but for rounding.
    for name in ("openvino", "onnxruntime"):
        alike = np.corrcoef(found[name, True], found["openvino", False])[0, 1]
        assert alike > 0.95, name


def _round(scale: float, people=(0, 0, 0, 1, 2), start: float = 1.0) -> dict:
    """A round of frames whose detector takes 10 ms, a person 20, and the rest 5."""
    frames = [(n, scale * (15 + 20 * n), scale * 10, scale * 20 * n) for n in people]
    network = {"input": [192, 256], "gmac": 0.3, "rate": 2e9 / scale, "precision": "int8"}
    network |= {"peak": 8e9 / scale}
    person = network | {"input": [320, 320], "precision": "float32", "peak": 4e9 / scale}
    return {
        "frames": frames,
        "start": start,
        "memory": 2**28,
        "networks": {"pose": network, "person": person},
    }


def test_every_column_is_about_the_same_frames():
    """The 2018 test bench left frames without people out of its pose column alone."""
    row = runs.summary(THIS, [_round(1.0, start=4.0), _round(3.0, start=2.0), _round(1.5)])
    assert (row.frames_0, row.frames_1, row.frames_more) == (3, 1, 1)
    assert (row.detector, row.pose, row.full) == (15, 0, 22.5)  # of the middle round
    assert (row.pose_1, row.pose_more) == (30, 60)
    assert row.full >= row.detector + row.pose
    assert (row.full_low, row.full_high) == (15, 45)
    assert row.pose_p95 == pytest.approx(1.5 * np.percentile([0, 0, 0, 20, 40], 95))
    assert (row.cold, row.warm) == (4, 1.5)
    assert row.rate == pytest.approx(1e3 / (1.5 * 27))
    assert row.memory == 256 and row.pose_input == "192x256"


def test_a_share_of_the_peak_is_taken_within_a_round():
    """What slows the machine for a while slows the network and the peak alike."""
    row = runs.summary(THIS, [_round(1.0), _round(9.0), _round(2.0)])
    assert row.pose_share == pytest.approx(0.25)
    nothing = _round(1.0)
    nothing["networks"]["pose"]["peak"] = None
    assert math.isnan(runs.summary(THIS, [nothing]).pose_share)


def test_each_network_is_held_against_the_peak_of_its_own_precision():
    row = runs.summary(replace(THIS, precision="int8"), [_round(1.0)])
    assert (row.pose_peak, row.person_peak) == (8, 4)
    assert (row.pose_share, row.person_share) == pytest.approx((0.25, 0.5))
    (line,) = list(report.markdown([row], []))[2:]
    assert "| int8, person float32 |" in line and "| 50%, 25% |" in line


def test_a_network_alone_has_no_detector_to_tell_of():
    result = _round(1.0, people=(1, 1))
    del result["networks"]["person"]
    row = runs.summary(replace(THIS, person="none"), [result])
    assert math.isnan(row.detector) and math.isnan(row.person_gmac) and math.isnan(row.warm)
    assert row.pose == 20


def _row(threads: int, full: float, spread: float = 0.0, **changed) -> runs.Row:
    score = changed.pop("score", None)
    return runs.Row(
        replace(THIS, threads=threads, **changed),
        full=full,
        full_low=full - spread,
        full_high=full + spread,
        pose_input="192x256",
        scores={} if score is None else {"lspet": ("PCK@0.2 torso", score)},
    )


def test_threads_are_the_physical_cores_unless_measured_otherwise():
    within = report.recommendation([_row(1, 10, 1), _row(2, 11, 1), _row(4, 12, 1)], 2)
    assert "--threads 2" in within and "threads = physical cores" in within
    beyond = report.recommendation([_row(1, 10, 1), _row(2, 13, 1)], 2)
    assert "--threads 1" in beyond and "faster than the 2 physical cores" in beyond
    alone = report.recommendation([_row(1, 10, 1)], 2)
    assert "the 2 physical cores were not measured" in alone


def test_speed_may_cost_a_point_and_no_more():
    rows = [
        _row(2, 20, precision="float32", score=0.700),
        _row(2, 10, precision="bf16", score=0.692),
        _row(2, 5, size=128, score=0.600),
    ]
    line = report.recommendation(rows, 2)
    assert "--precision bf16" in line and "score 69.2 %" in line and "--size" not in line
    assert "--size 128" in report.recommendation([replace(row, scores={}) for row in rows], 2)


def test_what_cannot_run_is_a_row_that_says_why():
    broken = runs.Row(replace(THIS, precision="bf16"), why="no bf16 | here")
    rows = [_row(2, 20, score=0.5), broken]
    lines = list(report.markdown(rows, ["lspet"]))
    assert "cannot run: no bf16 / here" in lines[-1]
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    table = list(csv.DictReader(report.as_csv(rows, ["lspet"]).splitlines()))
    assert [row["why_not"] for row in table] == ["", "no bf16 | here"]
    assert table[0]["lspet_score"] == "50.0" and table[1]["lspet_score"] == ""
    assert table[1]["full_ms"] == "" and table[0]["full_ms"] == "20"
    assert "nothing" in report.recommendation([broken], 2)


def test_a_graph_that_looks_at_the_mirror_image_too_counts_both():
    once, both = (multiplies(weights_path(name), (192, 256)) for name in ("balanced", "accurate"))
    assert both == 2 * once > 1e9


def test_a_process_that_dies_is_a_row_too(monkeypatch):
    monkeypatch.setattr(runs.sys, "executable", "false")
    (row,) = runs.measured([THIS], runs.Protocol("", 1, 2))
    assert row.why == "the process ended with code 1: it said nothing"


def test_scores_are_those_of_evaluate_and_threads_share_them(data, monkeypatch):
    from humanpose.api import load_model
    from humanpose.data.readers import read
    from humanpose.evaluate import run
    from humanpose.evaluate.scores import Truth
    from humanpose.infer.topdown import TopDown

    path = data / "lspet"
    samples = [each for each in read("lspet", path) if each.split == "validation"][:8]
    few = Truth.of(samples, name="lspet", path=path, split="validation", whole=samples)
    monkeypatch.setattr(run, "read_all", lambda *_: ([few], {}))
    wanted = [
        replace(THIS, threads=1),
        THIS,
        replace(THIS, size=96),
        replace(THIS, runtime="onnxruntime", precision="bf16"),
    ]
    told: list[str] = []
    found = runs.scored(wanted, ["lspet"], "validation", told.append)
    settings = InferenceOptions(runtime="openvino", precision="float32", cache="")
    loaded, spec, _ = load_model("balanced", settings)
    own = run.pose_score(TopDown(loaded, spec), samples)
    assert found[wanted[0]] == found[wanted[1]] == {"lspet": (own.rule, own.value)}
    assert found[wanted[2]] != found[wanted[1]]
    assert wanted[3] not in found and len(told) == 3


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
    assert 0 < float(first["pose_share"]) < 2
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
    monkeypatch.setattr(runs, "measured", lambda *_: pytest.fail("it measured"))
    code, _, err = cli("bench", *option, "-o", tmp_path)
    assert code == 2 and told in err and len(err.splitlines()) == 1
