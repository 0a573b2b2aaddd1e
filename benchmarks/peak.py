"""Measure this machine's peak multiply-accumulates a second, per back-end and precision.

    python benchmarks/peak.py [--threads 2]

Two chains of large products, 1024 x 1024 matrices and 7 x 7 convolutions of 128 channels, run as
ONNX files through the package's own runtimes with the settings of the networks that are compared
with them. Divide a network's GMAC by its time to see its share of the peak.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from humanpose.errors import HumanPoseError
from humanpose.infer import runtime
from humanpose.infer.options import InferenceOptions
from humanpose.skeleton import COCO17
from humanpose.spec import METADATA_KEY, ModelSpec

SIDE, DEPTH = 32, 2
CHAINS = {1: 1024, 7: 128}  # kernel -> channels: some back-ends are better at one than the other
SECONDS = 0.4  # of each chain: the fastest run of a short time is not disturbed


def main() -> None:
    """Print the peak of every back-end and precision that runs here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=None)
    threads = parser.parse_args().threads
    for name in ("openvino", "onnxruntime"):
        for precision in ("float32", "bf16", "int8"):
            wanted = "float32" if precision == "int8" else precision
            options = InferenceOptions(runtime=name, precision=wanted, threads=threads, cache="")
            try:
                rate = peak(options, int8=precision == "int8")
            except HumanPoseError as error:
                print(f"{name} {precision}: {error}")
            else:
                print(f"{name} {precision}: {rate / 1e9:.0f} GMAC/s")


def peak(options: InferenceOptions, *, int8: bool) -> float:
    """Return the multiply-accumulates a second of the faster chain.

    Raises:
        HumanPoseError: the back-end cannot run it.
    """
    crop = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), np.uint8)
    rates = []
    with tempfile.TemporaryDirectory() as folder:
        for kernel in CHAINS:
            path = Path(folder) / f"peak_{kernel}.onnx"
            onnx.save(chain(kernel, int8=int8), path)
            loaded, _ = runtime.load(path, options)
            rates.append(chain_macs(kernel) / fastest(partial(loaded.run, crop)))
    return max(rates)


def chain_macs(kernel: int) -> int:
    """Return the multiply-accumulates of one run of a chain."""
    width = CHAINS[kernel]
    return SIDE**2 * width * (3 + width * kernel**2 * DEPTH)


def fastest(run: Callable[[], object]) -> float:
    """Return the seconds of the fastest run."""
    run()
    best, until = np.inf, time.perf_counter() + SECONDS
    while (start := time.perf_counter()) < until:
        run()
        best = min(best, time.perf_counter() - start)
    return float(best)


def chain(kernel: int, *, int8: bool) -> onnx.ModelProto:
    """Return a model: RGB uint8 (N, 32, 32, 3) -> DEPTH convolutions of a kernel -> maps."""
    rng, width = np.random.default_rng(0), CHAINS[kernel]
    wide = rng.standard_normal((width, width, kernel, kernel)).astype(np.float32)
    wide /= kernel * width**0.5
    step = np.float32(np.abs(wide).max() / 127)
    tensors = {"first": rng.standard_normal((width, 3, 1, 1)).astype(np.float32) / 100}
    if int8:
        tensors |= {
            "small": np.round(wide / step).astype(np.int8), "step": np.array(step),
            "middle": np.array(0, np.int8), "scale": np.array(1 / 32, np.float32),
            "zero": np.array(128, np.uint8),
        }  # fmt: skip
    else:
        tensors["wide"] = wide
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "first"], ["x0"]),
    ]
    for i in range(DEPTH):
        x, weights = f"x{i}", "wide"
        if int8:
            nodes += [
                helper.make_node("QuantizeLinear", [x, "scale", "zero"], [f"q{i}"]),
                helper.make_node("DequantizeLinear", [f"q{i}", "scale", "zero"], [f"d{i}"]),
                helper.make_node("DequantizeLinear", ["small", "step", "middle"], [f"w{i}"]),
            ]
            x, weights = f"d{i}", f"w{i}"
        pads = [kernel // 2] * 4
        nodes.append(helper.make_node("Conv", [x, weights], [f"x{i + 1}"], pads=pads))
    nodes.append(helper.make_node("GlobalAveragePool", [f"x{DEPTH}"], ["maps"]))
    graph = helper.make_graph(
        nodes,
        "peak",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["N", width, 1, 1])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    spec = ModelSpec(
        "peak", "pose", "chain", {}, COCO17, (SIDE, SIDE),
        precision="int8" if int8 else "float32",
    )  # fmt: skip
    helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    return model


if __name__ == "__main__":
    main()
