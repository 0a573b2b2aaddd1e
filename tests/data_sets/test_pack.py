"""Packs: what goes in comes out, whatever happens to the build or to the file."""

import functools
import hashlib
import json
import multiprocessing
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from makers.data import make_sets

from humanpose.data.augment import Augmentation
from humanpose.data.pack import Pack, PackedSample
from humanpose.data.pack_writer import Store, common_skeleton, name_of, split_by_picture
from humanpose.data.pose import PoseDataset
from humanpose.data.readers import read
from humanpose.errors import FormatError, HumanPoseError, InputError
from humanpose.geometry import Crop
from humanpose.images import load_image
from humanpose.lab.packing import PackRecipe, build
from humanpose.skeleton import BODY19, COCO17, FLIC9, LSP14, MPII16, Skeleton
from humanpose.spec import ModelSpec
from humanpose.train.config import Recipe
from humanpose.types import Sample

SPEC = ModelSpec("t", "pose", "lite", {"joints": 19}, BODY19, (96, 128))


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> list[str]:
    return make_sets(tmp_path_factory.mktemp("sets"), 12)


@pytest.fixture(scope="module")
def pack(sets, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pack") / "both.json"
    build(PackRecipe(data=sets, box=(96, 128), shard=10), path)
    return path


def shards(pack: Path) -> list[Path]:
    return [pack.parent / name for name in Pack(pack).shards]


def copy(pack: Path, folder: Path) -> Path:
    for file in (pack, *shards(pack)):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder / pack.name


def originals(sets: list[str]) -> dict[tuple[str, str], Sample]:
    samples = [
        s for entry in sets for s in read(*(lambda n, _, p: (n, Path(p)))(*entry.partition("=")))
    ]
    return {sample.origin: sample for sample in samples}


def test_every_field_comes_back(sets, pack):
    known = originals(sets)
    rows = list(Pack(pack))
    assert {row.origin for row in rows} == set(known) and len(rows) == len(known)
    shrunk = 0
    for row in rows:
        sample = known[row.origin]
        factor = row.crop.matrix[0, 0]
        shrunk += factor < 0.999
        assert row.skeleton == sample.skeleton and row.split == sample.split
        assert row.visible.tolist() == sample.visible.tolist()
        assert np.allclose(
            row.crop.to_picture(row.joints), sample.joints, atol=2e-3, equal_nan=True
        )
        assert np.allclose(row.crop.to_picture(row.box[:2]), sample.box[:2], atol=2e-3)
        assert np.allclose(row.box[2:] / factor, sample.box[2:], rtol=1e-5)
        assert np.isclose(row.area / factor**2, sample.area, rtol=1e-5)
        for name in ("scale", "head_size"):
            value = getattr(row, name) / factor
            assert np.isclose(value, getattr(sample, name), rtol=1e-5, equal_nan=True), name
        assert (row.centre is None) == (sample.centre is None)
        if row.centre is not None:
            assert np.allclose(row.crop.to_picture(row.centre), sample.centre, atol=2e-3)
        assert row.name.endswith(sample.picture.name)
    assert 0 < shrunk < len(rows)
    assert {row.name[:2] for row in rows if row.origin[0] == "coco"} == {"a/", "b/"}


def test_stored_pixels_lie_where_the_transform_says(sets, pack):
    """The original, warped by the stored transform, is the stored picture but for JPEG."""
    known = originals(sets)
    whole = 0
    for row in Pack(pack):
        original, stored = load_image(known[row.origin].picture), row.image()
        assert stored.shape == (row.crop.size[1], row.crop.size[0], 3)
        assert all(a <= b for a, b in zip(stored.shape, original.shape, strict=True))
        moved = Crop(row.crop.matrix + np.array([[0, 0, 3], [0, 0, 0]]), row.crop.size)
        near, far = (
            np.abs(crop.cut(original).astype(int) - stored)[2:-2, 4:-2].mean()
            for crop in (row.crop, moved)
        )
        assert near < 6 and near < 0.7 * far
        if stored.shape == original.shape and known[row.origin].picture.suffix == ".jpg":
            whole += 1
            assert row.file.read(*row.place) == known[row.origin].picture.read_bytes()
    assert whole


@pytest.mark.parametrize("raw", [False, True])
def test_a_training_sees_the_same_through_the_pack(sets, tmp_path, raw):
    known = originals(sets)
    build(PackRecipe(data=sets, box=(96, 128), raw=raw, quality=98), tmp_path / "p.json")
    rows = list(Pack(tmp_path / "p.json"))
    rules = Augmentation(scale=(0.7, 1.4), rotation=60, shift=0.08, flip=0.5)
    ours = PoseDataset(rows, SPEC, rules)
    theirs = PoseDataset([known[row.origin] for row in rows], SPEC, rules)
    far = []
    for i in range(len(rows)):
        a, b = ours[(0, i)], theirs[(0, i)]
        assert np.allclose(a["target"], b["target"], atol=2e-3)
        assert (a["known"] == b["known"]).all()
        far.append(np.abs(a["image"].astype(int) - b["image"]).mean())
    assert np.median(far) < 4
    size = sum(path.stat().st_size for path in shards(tmp_path / "p.json"))
    assert size < 1.2 * sum(row.place[1] for row in rows) + 65536


def test_hdf5_tools_read_it(pack):
    import h5py

    persons = 0
    for path in shards(pack):
        with h5py.File(path) as file:
            rows = file["rows"][()]
            persons += len(rows)
            start, length = int(rows["offset"][3]), int(rows["length"][3])
            data = file["pictures"][start : start + length]
            assert cv2.imdecode(data, cv2.IMREAD_COLOR).shape[1::-1] == tuple(rows["size"][3])
    assert persons == len(Pack(pack)) == 36 and len(shards(pack)) == 4
    index = json.loads(pack.read_text())
    assert index["about"]["skeleton"]["joints"][:17] == list(COCO17.joints)
    for shard in index["shards"]:
        content = (pack.parent / shard["name"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == shard["sha256"]


def test_people_of_a_picture_lie_in_one_shard(pack):
    files = {}
    for row in Pack(pack):
        files.setdefault((row.origin[0], row.name), set()).add(row.file.path)
    assert {len(found) for found in files.values()} == {1}


def test_nothing_of_the_stored_square_is_enlarged_or_lost():
    store = Store(box=(100, 200), context=1.0, reach=1.5)
    crop, (rows, columns) = store.crop(np.array([300, 300, 100, 400], np.float32), (2000, 1000))
    # The person is shrunk to 200 of 400 pixels; the square has 1.5 x 400 = 600 around (350, 500).
    assert (columns, rows) == (slice(50, 650), slice(200, 800)) and crop.size == (300, 300)
    assert crop.to_picture(np.array([-0.5, -0.5], np.float32)).tolist() == [49.5, 199.5]
    crop, part = store.crop(np.array([10, 10, 20, 40], np.float32), (50, 45))
    assert crop.size == (50, 45) and part == (slice(0, 45), slice(0, 50))
    assert crop.matrix.tolist() == [[1, 0, 0], [0, 1, 0]]


def person(picture: str, split: str = "train", name: str = "lsp") -> Sample:
    nothing = np.full((14, 2), np.nan, np.float32)
    box = np.array([0, 0, 9, 9], np.float32)
    return Sample(Path(picture), nothing, np.zeros(14, np.uint8), box, 1, split, (name, "1"), LSP14)


def test_a_pictures_people_never_cross():
    people = [person(f"/x/{i % 100}.jpg", name="lsp" if i % 2 else "coco") for i in range(1000)]
    for shares in ((0.8, 0.1, 0.1), (0.5, 0.5, 0.0), (0.0, 0.0, 1.0)):
        splits = split_by_picture(people, shares, seed=3)
        by_picture = {(s.picture, split) for s, split in zip(people, splits, strict=True)}
        assert len(by_picture) == 100
        for name in ("coco", "lsp"):
            found = [p for s, p in zip(people, splits, strict=True) if s.origin[0] == name]
            counts = [found.count(part) / len(found) for part in ("train", "validation", "test")]
            assert np.allclose(counts, shares, atol=0.011)
    assert split_by_picture(people, (0.5, 0.5, 0), 3) == split_by_picture(people, (0.5, 0.5, 0), 3)
    assert split_by_picture(people, (0.5, 0.5, 0), 3) != split_by_picture(people, (0.5, 0.5, 0), 4)


def test_kept_splits_hold_out_a_torn_picture():
    people = [person("a.jpg"), person("a.jpg", "validation"), person("b.jpg"), person("a.jpg")]
    assert split_by_picture(people, None, 0) == ["validation", "validation", "train", "validation"]


def test_shares_in_a_built_pack(sets, tmp_path):
    share = {"train": 0.5, "validation": 0.25, "test": 0.25}
    build(PackRecipe(data=sets, split=share, seed=1), tmp_path / "p.json")
    rows = list(Pack(tmp_path / "p.json"))
    assert len({(row.origin[0], row.name, row.split) for row in rows}) == 24
    assert {row.split for row in rows} == {"train", "validation", "test"}
    assert Pack(tmp_path / "p.json").about["recipe"]["seed"] == 1


def test_a_common_skeleton_loses_nothing():
    odd = Skeleton("dog", ("nose", "head", "tail", "head_top"), ((0, 1),), ())
    skeletons = [COCO17, LSP14, MPII16, FLIC9, odd]
    common, places = common_skeleton(skeletons)
    assert set(BODY19.joints) < set(common.joints) and len(common.joints) == 21 + 2
    for skeleton, place in zip(skeletons, places, strict=True):
        assert len(set(place)) == len(skeleton.joints)
    assert common.joints[places[2][MPII16.index("upper_neck")]] == "neck"
    assert common_skeleton([odd]) == (odd, [[0, 1, 2, 3]])


def test_names_are_paths_below_the_common_folder():
    people = [person("/x/a/1.jpg"), person("/x/b/1.jpg"), person("/y/2.jpg", name="coco")]
    assert name_of(people) == ["a/1.jpg", "b/1.jpg", "2.jpg"]


def test_a_pack_of_a_pack_keeps_the_way_back(sets, pack, tmp_path):
    build(PackRecipe(data=[f"pack={pack}"], box=(48, 64), raw=True), tmp_path / "small.json")
    known = originals(sets)
    for row in Pack(tmp_path / "small.json"):
        want = known[row.origin].joints
        assert np.allclose(row.crop.to_picture(row.joints), want, atol=5e-3, equal_nan=True)
        assert row.name.endswith(known[row.origin].picture.name)


def test_a_teachers_maps_lie_where_the_network_put_them(sets, tmp_path):
    """Decoded from the pack, they give the joints that the network finds in the stored picture."""
    from humanpose import heatmap
    from humanpose.api import load_model
    from humanpose.infer.options import InferenceOptions
    from humanpose.infer.topdown import TopDown

    recipe = PackRecipe(data=sets[1:], raw=True)
    build(recipe, tmp_path / "p.json", teacher="balanced")
    pack = Pack(tmp_path / "p.json")
    runtime, spec, _ = load_model("balanced", InferenceOptions(precision="float32"))
    assert pack.about["teacher"]["spec"] == json.loads(spec.to_json())
    for row in list(pack)[:3]:
        (person,) = TopDown(runtime, spec).estimate(row.image(), row.box[None])
        maps = row.teacher_maps()
        assert maps.shape == (1, 19, 64, 48) and maps.dtype == np.float16
        joints, _ = heatmap.decode_crops(maps[-1:, :].astype(np.float32), [row.cells], spec.decode)
        assert np.abs(joints[0] - person.joints).max() < 1
    assert pack.damaged() == []


def test_a_recipe_names_a_pack(sets, pack):
    from humanpose.lab.training import read_sets

    base = {"name": "t", "task": "pose", "net": "lite", "input": [96, 128], "samples": 1, "lr": 1}
    recipe = Recipe.model_validate(base | {"data": [f"pack={pack}"], "backbone_lr": 1})
    found = read_sets(recipe)
    assert {name: len(part) for name, part in found.items()} == {"coco": 24, "mpii": 12}
    assert len(read("mpii", pack)) == 12
    with pytest.raises(InputError, match="people cut out"):
        read_sets(recipe.model_copy(update={"task": "person"}))


def _sums(rows: list[PackedSample]) -> list[int]:
    return [int(row.image().astype(np.int64).sum()) for row in rows]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_many_processes_read_at_once(pack, method):
    rows = list(Pack(pack))
    want = _sums(rows)  # the file is open when the workers are made
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(_sums, [rows] * 4) == [want] * 4


def test_many_threads_read_at_once(pack):
    rows = list(Pack(pack))
    want = _sums(rows)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(_sums, [list(Pack(pack))] * 16)) == [want] * 16


def test_a_pack_that_is_replaced_while_in_use_is_noticed(pack, tmp_path):
    rows = list(Pack(copy(pack, tmp_path)))
    rows[-1].image()
    last = rows[-1].file.path
    last.write_bytes(last.read_bytes()[:-5000])
    with pytest.raises(InputError, match="changed while it was in use"):
        rows[-1].image()
    last.unlink()
    with pytest.raises(InputError, match="does not exist"):
        rows[-1].image()
    with pytest.raises(InputError, match=f"{last} does not exist"):
        Pack(tmp_path / pack.name)


def test_what_is_no_pack_is_refused(pack, tmp_path):
    for name, content in (("a", b""), ("b", b"x" * 3000), ("c", pack.read_bytes()[:900])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FormatError, match=str(tmp_path / name)):
            Pack(tmp_path / name)
    with pytest.raises(InputError, match="does not exist"):
        Pack(tmp_path / "absent.json")


def test_damage_is_found(cli, pack, tmp_path):
    damaged = copy(pack, tmp_path)
    row = Pack(damaged)[17]
    content = row.file.path.read_bytes()
    at = row.place[0] + row.place[1] // 2
    row.file.path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    assert Pack(damaged).damaged() == [row.file.path.name]
    code, out, _ = cli("data", "check", damaged, "--pictures")
    assert code == 2 and f"not what was written: 1 of 4 ({row.file.path.name})" in out
    at = content.index(row.box.tobytes())
    row.file.path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    with pytest.raises(FormatError, match="not what was written"):
        Pack(damaged)


def test_an_index_names_files_beside_it_only(pack, tmp_path):
    for name in ("../x.h5", "/etc/passwd", "a/b.h5"):
        index = json.loads(pack.read_text())
        index["shards"][0]["name"] = name
        (tmp_path / "p.json").write_text(json.dumps(index))
        with pytest.raises(FormatError, match="not the name of a file beside it"):
            Pack(tmp_path / "p.json")


def mutate_and_read(pack: Path, folder: Path, seed: int) -> str:
    """What becomes of one damaged copy; anything but an error of ours is raised."""
    rng = np.random.default_rng(seed)
    folder = folder / str(seed)
    folder.mkdir()
    index = copy(pack, folder)
    path = index if rng.random() < 0.2 else folder / rng.choice(shards(pack)).name
    content = bytearray(path.read_bytes())
    structure = len(content) if path == index else start_of_pictures(pack)
    for _ in range(int(rng.integers(1, 6))):
        # Two thirds of the damage where the structure and the table are.
        end = structure if rng.random() < 0.67 else len(content)
        at = int(rng.integers(0, end))
        kind = rng.integers(4)
        if kind == 0:
            content[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            content[at : at + 8] = rng.bytes(8)
        elif kind == 2:
            content[at : at + 8] = b"\xff" * 8
        else:
            del content[at + int(rng.integers(1, 4000)) :]
            break
    path.write_bytes(content)
    try:
        rows = Pack(index)
        for row in rows:
            row.image()
        return "read"
    except HumanPoseError as error:
        assert str(folder) in str(error) and "\n" not in str(error)
        return type(error).__name__
    finally:
        shutil.rmtree(folder)


@functools.cache
def start_of_pictures(pack: Path) -> int:
    """Bytes of a shard before its first picture: structure and table."""
    return Pack(pack)[0].place[0]


def mutations(pack: Path, folder: Path, count: int) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda seed: mutate_and_read(pack, folder, seed), range(count)))
    print({kind: found.count(kind) for kind in set(found)})
    assert found.count("FormatError") > count / 4


def test_damaged_packs_are_refused_or_read(pack, tmp_path):
    mutations(pack, tmp_path, 12)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_thousand_damaged_packs(pack, tmp_path):
    mutations(pack, tmp_path, 2000)
