"""Our Convolutional Pose Machines against Caffe's, with OpenCV 4 as the judge.

    python -m venv judge
    judge/bin/pip install opencv-python-headless==4.10.0.84    # OpenCV 5 has no Caffe reader
    python benchmarks/parity/caffe.py --python judge/bin/python [--fixtures tests/data/caffe]

Each net is written as prototxt and caffemodel, once with layers of form V1 and once of V2, with
He weights and random biases. OpenCV reads and runs it; `parse_caffemodel` reads the same file and
our net runs the same input. Compared are the maps of every stage: the largest difference over
the map's range. Then, layer by layer, the input channels of one layer of ours are reversed, and
its stage's difference must grow to at least 100 times the tolerance. `--fixtures` writes the
small files that tests/checkpoints/test_caffe.py reads instead.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from humanpose import nets
from humanpose.checkpoints.legacy.caffe import parse_caffemodel
from humanpose.nets.cpm import CPM, VARIANTS, centre_map

Array = np.ndarray[Any, Any]
Layers = dict[str, list[Array]]

TOLERANCE = 1e-4
FAULT = 100 * TOLERANCE
# Heights and widths that each net takes (ceil-mode pooling with and without a clipped window).
SIZES = {
    "cpm-centermap": [(96, 96), (97, 89)],
    "cpm-vgg": [(96, 96), (100, 91)],
    "cpm-flic": [(96, 96), (97, 89)],
    "cpm-person": [(96, 96), (93, 107)],
}
FIXTURE_SIZES = {
    "cpm-centermap": (40, 33),
    "cpm-vgg": (36, 30),
    "cpm-flic": (33, 40),
    "cpm-person": (37, 45),
}

_JUDGE = """
import sys
import cv2, numpy as np
prototxt, model, inputs, out, *names = sys.argv[1:]
cv2.setNumThreads(1)
net = cv2.dnn.readNetFromCaffe(prototxt, model)
net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
net.enableWinograd(False)
if inputs == "-":  # the layers' blobs as OpenCV has them
    found = {}
    for name in names:
        for i, values in enumerate(net.getLayer(name).blobs):
            found[f"{name}.{i}"] = values
    np.savez(out, **found)
else:
    net.setInput(np.load(inputs))
    np.savez(out, **dict(zip(names, net.forward(names))))
print(cv2.__version__)
"""


# ------------------------------------------------------------------------------- the net as text


def _layer(name: str, kind: str, bottoms: Sequence[str], tops: Sequence[str], rest: str) -> str:
    ends = "".join(f' bottom: "{b}"' for b in bottoms) + "".join(f' top: "{t}"' for t in tops)
    return f'layer {{ name: "{name}" type: "{kind}"{ends} {rest} }}\n'


class _Text:
    """A deploy prototxt, layer after layer, of a net made by `nets.create`."""

    def __init__(self, net: CPM, height: int, width: int) -> None:
        self.net = net
        self.centred = "centre" in net.variant.order
        name, channels = ("data", 4) if self.centred else ("image", 3)
        self.text = f'name: "cpm"\ninput: "{name}"\n'
        self.text += "".join(f"input_dim: {n}\n" for n in (1, channels, height, width))
        if self.centred:
            cut = "slice_param { axis: 1 slice_point: 3 }"
            self.text += _layer("slice", "Slice", ["data"], ["image", "center_map"], cut)
            self.pool("pool_center_lower", "center_map", "AVE", 9, 8)

    def pool(self, name: str, bottom: str, how: str, kernel: int, stride: int) -> str:
        rest = f"pooling_param {{ pool: {how} kernel_size: {kernel} stride: {stride} }}"
        self.text += _layer(name, "Pooling", [bottom], [name], rest)
        return name

    def run(self, steps: Sequence[str], bottom: str) -> str:
        """Append the layers of `steps`; returns what the last one gives."""
        for step in steps:
            if step.startswith("pool"):
                bottom = self.pool(f"{bottom}_pool", bottom, "MAX", int(step[4:]), 2)
                continue
            name, kernel, width = step.split()
            rest = (
                f"convolution_param {{ num_output: {int(width) or self.net.maps} "
                f"kernel_size: {kernel} pad: {int(kernel) // 2} }}"
            )
            self.text += _layer(name, "Convolution", [bottom], [name], rest)
            if int(width):
                self.text += _layer(f"{name}_relu", "ReLU", [name], [name], "")
            bottom = name
        return bottom


def prototxt(net: CPM, height: int, width: int) -> tuple[str, list[str]]:
    """The deploy prototxt of `net`, and the layers that give the maps of its stages."""
    variant, text = net.variant, _Text(net, height, width)
    parts = {"centre": "pool_center_lower"}
    parts["feature"] = trunk = text.run(variant.features, "image")
    beliefs = [text.run(variant.first, "image" if variant.own_trunk else trunk)]
    for stage in range(2, net.stages + 1):
        parts["belief"] = beliefs[-1]
        if variant.own_trunk:
            # Stage 2 reduces in conv4_stage2, stage t in conv1_stage{t}.
            name = "conv4_stage2" if stage == 2 else f"conv1_stage{stage}"
            parts["feature"] = text.run([f"{name} 5 32"], trunk)
        concat = f"concat_stage{stage}"
        rest = "concat_param { axis: 1 }"
        bottoms = [parts[part] for part in variant.order]
        text.text += _layer(concat, "Concat", bottoms, [concat], rest)
        refine = [step.replace(" ", f"_stage{stage} ", 1) for step in variant.refine]
        beliefs.append(text.run(refine, concat))
    return text.text, beliefs


# ----------------------------------------------------------------------------- the net as numbers


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    value = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _blob(values: Array, legacy: bool) -> bytes:
    if legacy:
        extents = (1,) * (4 - values.ndim) + values.shape
        shape = b"".join(_field(i + 1, n) for i, n in enumerate(extents))
    else:
        shape = _field(7, _field(1, b"".join(map(_varint, values.shape))))
    return shape + _field(5, values.astype("<f4").tobytes())


def caffemodel(layers: Layers, form: str, kinds: dict[str, tuple[str, int]] | None = None) -> bytes:
    """A NetParameter of form "v1" or "v2", with the layers without blobs that a snapshot has.

    Args:
        layers: name -> blobs; V1 writes them with four extents, as Caffe did then.
        form: "v1" or "v2".
        kinds: name -> (type of V2, type of V1); Convolution where absent.
    """
    out = [_field(1, "cpm")]
    for name, blobs in {"input_data": [], **layers, "input_data_split": [], "loss": []}.items():
        text, number = (kinds or {}).get(name, ("Convolution", 4)) if blobs else ("Split", 22)
        if form == "v1":
            body = [_field(4, name), _field(5, number)]
            out.append(_field(2, b"".join(body + [_field(6, _blob(b, True)) for b in blobs])))
        else:
            body = [_field(1, name), _field(2, text)]
            out.append(_field(100, b"".join(body + [_field(7, _blob(b, False)) for b in blobs])))
    return b"".join(out)


def uniform(count: int, seed: int) -> Array:
    """(count,) float32 in [-1, 1); the raw bits of PCG64 never change between NumPy versions."""
    bits = np.random.PCG64(seed).random_raw(count) >> np.uint64(40)
    return (bits.astype(np.float64) / (1 << 23) - 1).astype(np.float32)


def he_weights(net: torch.nn.Module, seed: int) -> Layers:
    """He (uniform) weights and biases in [-0.1, 0.1) for every layer of `net`, by name."""
    layers: Layers = {}
    for i, (name, own) in enumerate(net.state_dict().items()):
        layer, _, part = name.rpartition(".")
        shape = tuple(own.shape)
        bound = np.float32((6 / np.prod(shape[1:])) ** 0.5 if part == "weight" else 0.1)
        values = bound * uniform(own.numel(), 1000 * seed + i).reshape(shape)
        layers.setdefault(layer, []).append(values)
    return layers


def make_input(net: CPM, height: int, width: int, seed: int) -> Array:
    """(1, 3 or 4, height, width) noise in [-0.5, 0.5), with the centre map where the net has it."""
    image = 0.5 * uniform(3 * height * width, seed).reshape(1, 3, height, width)
    if "centre" not in net.variant.order:
        return image
    return np.concatenate([image, centre_map(width, height).numpy()], axis=1)


# ------------------------------------------------------------------------------------ comparison


def judge(python: str, folder: Path, text: str, model: Path, given: Array | None,
          names: list[str]) -> dict[str, Array]:  # fmt: skip
    """What OpenCV has under `names`: outputs for the input `given`, or blobs without one."""
    (folder / "net.prototxt").write_text(text)
    if given is not None:
        np.save(folder / "input.npy", given)
    command = [python, "-c", _JUDGE, str(folder / "net.prototxt"), str(model)]
    command += ["-" if given is None else str(folder / "input.npy"), str(folder / "out.npz")]
    child = subprocess.run([*command, *names], capture_output=True, text=True, check=False)
    if child.returncode:
        sys.exit(f"OpenCV could not do it:\n{child.stderr}")
    with np.load(folder / "out.npz") as found:
        return {name: found[name] for name in found.files}


@torch.inference_mode()
def run_ours(net: CPM, given: Array) -> list[Array]:
    tensor = torch.from_numpy(given)
    maps = net(tensor[:, :3], tensor[:, 3:] if tensor.shape[1] == 4 else None)
    return [m.numpy() for m in maps]


def differences(ours: list[Array], theirs: list[Array]) -> list[float]:
    """Largest difference over the map's range, for every stage."""
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape, f"{a.shape} here, {b.shape} in OpenCV"
    return [float(np.abs(a - b).max() / np.ptp(b)) for a, b in zip(ours, theirs, strict=True)]


def faults(net: CPM, given: Array, theirs: list[Array]) -> list[float]:
    """For every stage, the smallest difference of its maps when one of its layers is reversed.

    Every layer of the net takes its turn; the image features count as stage 1's where they have
    no stage in their name.
    """
    smallest = [np.inf] * net.stages
    for name, conv in net.named_children():
        assert isinstance(conv, torch.nn.Conv2d)
        stage = int(name.partition("_stage")[2] or 1) - 1
        kept = conv.weight.detach().clone()
        with torch.no_grad():
            conv.weight.copy_(kept.flip(1))
            smallest[stage] = min(smallest[stage], differences(run_ours(net, given), theirs)[stage])
            conv.weight.copy_(kept)
    return smallest


def check(name: str, python: str, folder: Path) -> bool:
    """Print the rows of a net; True where all is well."""
    net = nets.create(name)
    assert isinstance(net, CPM)
    layers = he_weights(net, seed=sorted(VARIANTS).index(name))
    states = {}
    for form in ("v1", "v2"):
        (folder / form).write_bytes(caffemodel(layers, form))
        states[form] = parse_caffemodel(str(folder / form))
        assert all(np.array_equal(states[form][f"{k}.weight"], v[0]) for k, v in layers.items())
    net.load_state_dict({k: torch.from_numpy(v) for k, v in states["v1"].items()})
    good = True
    for height, width in SIZES[name]:
        text, names = prototxt(net, height, width)
        given = make_input(net, height, width, seed=7)
        ours = run_ours(net, given)
        for form in ("v1", "v2"):
            found = judge(python, folder, text, folder / form, given, names)
            theirs = [found[n] for n in names]
            worst = differences(ours, theirs)
            last = (height, width, form) == (*SIZES[name][-1], "v2")
            broken = faults(net, given, theirs) if last else []
            good &= max(worst) < TOLERANCE and min(broken, default=1) >= FAULT
            cells = "x".join(map(str, theirs[-1].shape[1:]))
            said = " ".join(f"{d:.1e}" for d in worst)
            print(f"{name:14} {height:3}x{width:<3} {form}  {cells:9} {said}", flush=True)
            if broken:
                said = " ".join(f"{d:.1e}" for d in broken)
                print(f"{'':22}least of its faults: {said}", flush=True)
    return good


# -------------------------------------------------------------------------------------- fixtures

_FORMS = """name: "forms"
input: "data" input_dim: 1 input_dim: 2 input_dim: 6 input_dim: 5
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 3 kernel_size: 3 pad: 1 } }
layer { name: "norm" type: "BatchNorm" bottom: "conv" top: "norm"
        batch_norm_param { use_global_stats: true } }
layer { name: "slope" type: "PReLU" bottom: "norm" top: "slope" }
layer { name: "bare" type: "Convolution" bottom: "slope" top: "bare"
        convolution_param { num_output: 4 kernel_h: 1 kernel_w: 2 bias_term: false } }
layer { name: "fc" type: "InnerProduct" bottom: "bare" top: "fc"
        inner_product_param { num_output: 5 } }
"""
_FORM_KINDS = {"norm": ("BatchNorm", 0), "slope": ("PReLU", 0), "fc": ("InnerProduct", 14)}
_FORM_SHAPES: dict[str, list[tuple[int, ...]]] = {
    "conv": [(3, 2, 3, 3), (3,)],
    "norm": [(3,), (3,), (1,)],
    "slope": [(3,)],
    "bare": [(4, 3, 1, 2)],
    "fc": [(5, 96), (5,)],
}


def _forms() -> Layers:
    seeds = iter(range(50, 100))
    return {
        name: [uniform(int(np.prod(s)), next(seeds)).reshape(s) + 2 for s in shapes]
        for name, shapes in _FORM_SHAPES.items()
    }


def write_forms(python: str, folder: Path, scratch: Path) -> None:
    """forms_v1 and forms_v2.caffemodel, and the blobs that OpenCV finds in them (forms.npz)."""
    layers = _forms()
    kept: dict[str, Array] = {}
    for form in ("v1", "v2"):
        # Form V1 was closed before BatchNorm and PReLU were added.
        some = {k: v for k, v in layers.items() if form == "v2" or k not in ("norm", "slope")}
        text = _FORMS
        if form == "v1":
            lines = [x for x in text.replace("\n        ", " ").splitlines(True)
                     if '"norm" type' not in x and '"slope" type' not in x]  # fmt: skip
            text = "".join(lines).replace('"slope"', '"conv"')
        path = folder / f"forms_{form}.caffemodel"
        path.write_bytes(caffemodel(some, form, _FORM_KINDS))
        for name, values in judge(python, scratch, text, path, None, list(some)).items():
            kept[f"{form}.{name}"] = values
    np.savez_compressed(folder / "forms.npz", **kept)


def write_maps(python: str, folder: Path, scratch: Path) -> None:
    """maps.npz: the maps of every stage of every net as OpenCV has them, at a tiny size."""
    kept: dict[str, Array] = {}
    for seed, (name, (height, width)) in enumerate(FIXTURE_SIZES.items(), start=20):
        net = nets.create(name)
        assert isinstance(net, CPM)
        (scratch / "net").write_bytes(caffemodel(he_weights(net, seed), "v2"))
        text, names = prototxt(net, height, width)
        given = make_input(net, height, width, seed)
        found = judge(python, scratch, text, scratch / "net", given, names)
        kept[f"{name}/{height}/{width}/{seed}"] = np.stack([found[n][0] for n in names])
    np.savez_compressed(folder / "maps.npz", **kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", required=True, help="interpreter that has OpenCV 4")
    parser.add_argument("--net", choices=SIZES, action="append", help="all of them by default")
    parser.add_argument("--fixtures", type=Path, help="folder for the test files; no comparison")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if args.fixtures:
            args.fixtures.mkdir(parents=True, exist_ok=True)
            write_forms(args.python, args.fixtures, scratch)
            write_maps(args.python, args.fixtures, scratch)
            return
        print("net            input   form maps     largest difference / range, stage by stage")
        results = [check(net, args.python, scratch) for net in args.net or SIZES]
    if not all(results):
        sys.exit(f"a stage differs by {TOLERANCE} or more, or a fault by less than {FAULT}")
    print(f"every stage within {TOLERANCE}, every fault at {FAULT} or more")


if __name__ == "__main__":
    main()
