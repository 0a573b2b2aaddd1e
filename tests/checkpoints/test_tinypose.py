"""PP-TinyPose's files as a start of `tinypose`."""

from pathlib import Path

import numpy as np
import pytest
import torch

from humanpose import nets
from humanpose.checkpoints.start.tinypose import read_tinypose
from humanpose.errors import FormatError, InputError


@pytest.mark.real_data
def test_maps_are_those_of_openvino(data: Path):
    import openvino as ov

    path = data / "weights" / "tinypose_2022_256x192.xml"
    net = nets.create("tinypose", joints=17).eval()
    net.load_state_dict(read_tinypose(path))
    image = np.random.default_rng(0).normal(0, 1, (1, 3, 256, 192)).astype(np.float32)
    compiled = ov.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    expected = next(maps for maps in compiled([image]).values() if maps.ndim == 4)
    with torch.no_grad():
        assert np.abs(net(torch.from_numpy(image)).numpy() - expected).max() < 1e-5
        # A deliberate fault in the last stage shows.
        net.exchanges[2][1].branches[3][0].branch[0].conv.weight *= 1.1
        assert np.abs(net(torch.from_numpy(image)).numpy() - expected).max() > 1e-3


@pytest.mark.real_data
def test_two_trainings_agree_about_a_person(data: Path):
    """The ncnn file of 2021 puts its maps where that of 2022 does."""
    from humanpose.geometry import box_of_picture, crop_of_box
    from humanpose.images import load_image

    image = load_image(data / "coco" / "images" / "000000000036.jpg")
    crop = crop_of_box(box_of_picture(image)[0], (192, 256), context=1.0).cut(image, (0, 0, 0))
    spec = nets.create("tinypose", joints=17).spec("tiny", "tinypose", {"joints": 17}, None)
    pixels = torch.from_numpy((crop - np.float32(spec.mean)) / np.float32(spec.std))
    places = []
    for name in ("tinypose_2022_256x192.xml", "tinypose_2021_256x192.ncnn.param"):
        net = nets.create("tinypose", joints=17).eval()
        net.load_state_dict(read_tinypose(data / "weights" / name))
        with torch.no_grad():
            maps = net(pixels.permute(2, 0, 1)[None].float())[0, :11]  # the upper body
        best = maps.flatten(1).argmax(1)
        places.append(torch.stack([best % 48, best // 48], 1).float())
    assert (places[0] - places[1]).norm(dim=1).median() <= 2.0


def test_other_files_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="no such file"):
        read_tinypose(tmp_path / "none.xml")
    other = tmp_path / "other.xml"
    other.write_text("<net/>")
    with pytest.raises(FormatError, match="OpenVINO"):
        read_tinypose(other)
    ncnn = tmp_path / "other.param"
    ncnn.write_text("7767517\n1 1\nConvolution a 1 1 x y 0=8 6=72\n")
    ncnn.with_suffix(".bin").write_bytes(b"\0" * 40)
    with pytest.raises(FormatError, match="ncnn"):
        read_tinypose(ncnn)
