"""Our reading of TensorFlow files, and CPM's arithmetic, against TensorFlow itself.

    python -m venv TF && TF/bin/pip install tensorflow-cpu
    python benchmarks/parity/tensorflow_checkpoint.py --python TF/bin/python

TensorFlow, in a process and environment of its own, builds CPM nets in psycharo's and in timctho's
naming with random weights, runs them, and saves checkpoints of the present format (one shard
and several) and of the one before, and a frozen graph. Ours reads each file and compares every
stage's maps; a fault put into one stage must show from that stage on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from humanpose import nets
from humanpose.checkpoints.mapping import read_foreign, to_net

TOLERANCE = 2e-5  # largest difference as a share of a stage's range
STAGES = 3

# What runs in TensorFlow. A layer is (TensorFlow name, kernel, width or 0 for beliefs).
_WRITER = """
import sys
import numpy as np
import tensorflow as tf

folder, seed = sys.argv[1], 7
v1 = tf.compat.v1
v1.disable_eager_execution()
rng = np.random.default_rng(seed)
STAGES = 3
VGG = [("conv1_1", 3, 64), ("conv1_2", 3, 64), "pool", ("conv2_1", 3, 128), ("conv2_2", 3, 128),
       "pool", ("conv3_1", 3, 256), ("conv3_2", 3, 256), ("conv3_3", 3, 256), ("conv3_4", 3, 256),
       "pool", ("conv4_1", 3, 512), ("conv4_2", 3, 512)]
V2 = VGG + [("conv4_%d_CPM" % i, 3, 256) for i in (3, 4, 5, 6)] + [("conv4_7_CPM", 3, 128)]


def conv(x, name, kernel, width, words, relu=True):
    with v1.variable_scope(name):
        inputs = int(x.shape[-1])
        scale = (2 / (kernel * kernel * inputs)) ** 0.5
        w = v1.get_variable(words[0], initializer=rng.normal(
            0, scale, (kernel, kernel, inputs, width)).astype(np.float32))
        b = v1.get_variable(words[1], initializer=rng.normal(0, 0.1, width).astype(np.float32))
        x = tf.nn.bias_add(tf.nn.conv2d(x, w, 1, "SAME"), b)
        return tf.nn.relu(x) if relu else x


def run(x, steps, words, window=2, padding="VALID"):
    for step in steps:
        if step == "pool":
            x = tf.nn.max_pool2d(x, window, 2, padding)
        else:
            x = conv(x, *step, words)
    return x


def psycharo_v2(image, centre, words=("weights", "biases")):
    trunk = run(image, V2, words)
    pooled = tf.nn.avg_pool2d(centre, 9, 8, "SAME")
    maps = [conv(conv(trunk, "conv5_1_CPM", 1, 512, words), "conv5_2_CPM", 1, 15, words, False)]
    for t in range(2, STAGES + 1):
        x = tf.concat([maps[-1], trunk, pooled], 3)
        for i in range(1, 6):
            x = conv(x, "Mconv%d_stage%d" % (i, t), 7, 128, words)
        x = conv(x, "Mconv6_stage%d" % t, 1, 128, words)
        maps.append(conv(x, "Mconv7_stage%d" % t, 1, 15, words, False))
    return maps


def psycharo_v1(image, centre, words=("weights", "biases")):
    def trunk(x, t):
        for i in (1, 2, 3):
            x = conv(x, "conv%d_stage%d" % (i, t), 9, 128, words)
            x = tf.nn.max_pool2d(x, 3, 2, "VALID")
        return x

    x = conv(trunk(image, 1), "conv4_stage1", 5, 32, words)
    x = conv(conv(x, "conv5_stage1", 9, 512, words), "conv6_stage1", 1, 512, words)
    maps = [conv(x, "conv7_stage1", 1, 15, words, False)]
    shared = trunk(image, 2)
    pooled = tf.nn.avg_pool2d(centre, 9, 8, "VALID")
    for t in range(2, STAGES + 1):
        x = conv(shared, "conv%d_stage%d" % (4 if t == 2 else 1, t), 5, 32, words)
        x = tf.concat([x, maps[-1], pooled], 3)
        for i in (1, 2, 3):
            x = conv(x, "Mconv%d_stage%d" % (i, t), 11, 128, words)
        x = conv(x, "Mconv4_stage%d" % t, 1, 128, words)
        maps.append(conv(x, "Mconv5_stage%d" % t, 1, 15, words, False))
    return maps


def timctho(image, centre, hand, words=("kernel", "bias")):
    widths = [64, 64, 128, 128] + [256] * 4 + [512, 512] + ([512] * 4 if hand else [256] * 4)
    padding, x, out = "VALID" if hand else "SAME", image, 22 if hand else 15
    with v1.variable_scope("sub_stages"):
        for i, width in enumerate(widths, 1):
            x = conv(x, "sub_conv%d" % i, 3, width, words)
            if i in (2, 4, 8):
                x = tf.nn.max_pool2d(x, 2, 2, padding)
        trunk = conv(x, "sub_stage_img_feature", 3, 128, words)
    pooled = tf.nn.avg_pool2d(centre, 9, 8, "SAME")
    with v1.variable_scope("stage_1"):
        maps = [conv(conv(trunk, "conv1", 1, 512, words), "stage_heatmap", 1, out, words, False)]
    for t in range(2, STAGES + 1):
        with v1.variable_scope("stage_%d" % t):
            x = tf.concat([maps[-1], trunk] + ([] if hand else [pooled]), 3)
            for i in range(1, 7):
                x = conv(x, "mid_conv%d" % i, 1 if i == 6 else 7, 128, words)
            maps.append(conv(x, "mid_conv7", 1, out, words, False))
    return maps


CASES = {
    "v2": (184, "CPM/PoseNet", psycharo_v2),
    "v1": (184, "CPM/PoseNet", psycharo_v1),
    "body": (128, "", lambda a, b: timctho(a, b, False)),
    "hand": (128, "", lambda a, b: timctho(a, b, True)),
}
for case, (side, scope, build) in CASES.items():
    with tf.Graph().as_default() as graph, v1.Session() as session:
        image = v1.placeholder(tf.float32, (1, side, side, 3), "image")
        centre = v1.placeholder(tf.float32, (1, side, side, 1), "centre")
        if scope:
            with v1.variable_scope(scope):
                maps = build(image, centre)
        else:
            maps = build(image, centre)
        v1.train.get_or_create_global_step()
        loss = tf.reduce_sum(maps[-1])
        wanted = [v for v in v1.trainable_variables() if v.shape.rank == 1]
        step = v1.train.AdamOptimizer(1e-9).minimize(loss, var_list=wanted[:2])
        session.run(v1.global_variables_initializer())
        feed = {image: rng.normal(0, 0.3, image.shape).astype(np.float32),
                centre: rng.uniform(0, 1, centre.shape).astype(np.float32)}
        values = session.run(maps, feed)
        np.savez(folder + "/" + case, image=feed[image], centre=feed[centre],
                 **{"maps_%d" % i: v for i, v in enumerate(values, 1)})
        v1.train.Saver(write_version=v1.train.SaverDef.V2).save(session, folder + "/%s.ckpt" % case)
        v1.train.Saver(write_version=v1.train.SaverDef.V1).save(session, folder + "/%s.old" % case)
        frozen = v1.graph_util.convert_variables_to_constants(
            session, graph.as_graph_def(), [m.op.name for m in maps])
        with open(folder + "/%s.pb" % case, "wb") as file:
            file.write(frozen.SerializeToString())

# Several shards: a sharded save on two logical devices.
v1.reset_default_graph()
saved = np.load(folder + "/v2.npz")
reader = tf.train.load_checkpoint(folder + "/v2.ckpt")
names = sorted(reader.get_variable_to_shape_map())
config = v1.ConfigProto(device_count={"CPU": 3})
with tf.Graph().as_default(), v1.Session(config=config) as session:
    for i, name in enumerate(names):
        with tf.device("/cpu:%d" % (i % 3)):
            v1.get_variable(name, initializer=reader.get_tensor(name))
    session.run(v1.global_variables_initializer())
    v1.train.Saver(sharded=True).save(session, folder + "/v2.sharded")
print("TensorFlow", tf.__version__)
"""
# name of the case -> our net, its options
NETS: dict[str, tuple[str, dict[str, Any]]] = {
    "v2": ("cpm-vgg", {"pooling": "floor"}),
    "v1": ("cpm-centermap", {"pooling": "floor"}),
    "body": ("cpm-vgg", {}),
    "hand": ("cpm-hand", {"pooling": "floor"}),
}
FAULTS = {
    "v2": ("conv5_2_CPM", "Mconv7_stage2", "Mconv7_stage3"),
    "v1": ("conv7_stage1", "Mconv5_stage2", "Mconv5_stage3"),
    "body": ("conv5_2_CPM", "Mconv7_stage2", "Mconv7_stage3"),
    "hand": ("conv6_2_CPM", "Mconv7_stage2", "Mconv7_stage3"),
}


@torch.inference_mode()
def maps_of(net: Any, saved: Any) -> list[np.ndarray[Any, Any]]:
    """Every stage's maps (h, w, maps) of ours on TensorFlow's input."""
    image, centre = (torch.from_numpy(saved[k].transpose(0, 3, 1, 2).copy()) for k in
                     ("image", "centre"))  # fmt: skip
    return [maps.numpy().transpose(0, 2, 3, 1) for maps in net(image, centre)]


def differences(net: Any, saved: Any) -> list[float]:
    """Of every stage, the largest difference as a share of TensorFlow's range."""
    found = []
    for i, ours in enumerate(maps_of(net, saved), 1):
        theirs = saved[f"maps_{i}"]
        assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
        found.append(float(np.abs(ours - theirs).max() / np.ptp(theirs)))
    return found


def compare(folder: Path, case: str, file: str) -> bool:
    """Read one file, print its line; whether it agrees and its faults show."""
    name, options = NETS[case]
    kind = "tensorflow-graph" if file.endswith(".pb") else "tensorflow"
    net = nets.create(name, stages=STAGES, **options).eval()
    found = to_net(read_foreign(kind, folder / file), kind, name, net)
    assert not found.missing and not found.refused, (found.missing, found.refused)
    net.load_state_dict(found.state)
    with np.load(folder / f"{case}.npz") as saved:
        parts = differences(net, saved)
        shown = []
        for stage, layer in enumerate(FAULTS[case]):
            head = net.get_submodule(layer)
            kept = {name: tensor.clone() for name, tensor in head.state_dict().items()}
            head.load_state_dict({name: tensor.flip(0) for name, tensor in kept.items()})
            shown.append(differences(net, saved)[stage])  # the joints in reversed order
            head.load_state_dict(kept)
    texts = [" ".join(f"{part:.1e}" for part in row) for row in (parts, shown)]
    print(
        f"{file:14}{name:15}{len(found.mapped):4} mapped {len(found.left_over):4} left over   "
        f"stages {texts[0]}   faults {texts[1]}"
    )
    return max(parts) < TOLERANCE and min(shown) > 100 * TOLERANCE


def main() -> None:
    """Write with TensorFlow, read with ours; ends with 1 if a file disagrees."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", required=True, help="an interpreter that has tensorflow")
    python = parser.parse_args().python
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([python, "-c", _WRITER, name], check=True)
        files = [(case, f"{case}.{end}") for case in NETS for end in ("ckpt", "old", "pb")]
        files.append(("v2", "v2.sharded"))
        print(f"shards of v2.sharded: {len(list(folder.glob('v2.sharded.data-*')))}")
        good = [compare(folder, case, file) for case, file in files]
    print(f"{sum(good)} of {len(good)} files agree below {TOLERANCE:g}, and show their faults")
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
