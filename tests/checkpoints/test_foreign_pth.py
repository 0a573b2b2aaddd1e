"""PyTorch checkpoints of other repositories: what is read, and that nothing is executed."""

import collections
import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from makers.checkpoints import fuzz, malicious
from torch import nn

from humanpose.checkpoints.legacy import pth
from humanpose.checkpoints.legacy.pth import read_pth
from humanpose.errors import FormatError, InputError, LimitError


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))


def saved(tmp_path, value, **options):
    path = tmp_path / "net.pth"
    torch.save(value, path, **options)
    return path


def prefixed(state):
    return {f"module.{name}": tensor for name, tensor in state.items()}


SHAPES = {
    "bare": lambda state, _: state,
    "ordered": lambda state, _: collections.OrderedDict(state),
    "prefixed": lambda state, _: prefixed(state),
    "training": lambda state, optimizer: {
        "epoch": 3, "model": "pose_hrnet", "state_dict": prefixed(state),
        "best_state_dict": {n: t + 1 for n, t in state.items()},
        "perf": np.float64(0.9), "optimizer": optimizer,
    },
    "best only": lambda state, _: {"best_state_dict": state, "perf": np.float64(0.9)},
    "hourglass": lambda state, optimizer: {
        "epoch": 3, "arch": "hg", "state_dict": prefixed(state), "best_acc": torch.tensor(0.9),
        "optimizer": optimizer,
    },
    "parameters": lambda state, _: {n: nn.Parameter(t, t.is_floating_point()) if
                                    t.is_floating_point() else t for n, t in state.items()},
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("modern", [True, False])
def test_every_shape_of_checkpoint_is_read(tmp_path, shape, modern):
    made = net()
    optimizer = torch.optim.Adam(made.parameters())
    made(torch.randn(2, 2, 5, 7)).sum().backward()
    optimizer.step()
    state = made.state_dict()
    path = saved(
        tmp_path,
        SHAPES[shape](state, optimizer.state_dict()),
        _use_new_zipfile_serialization=modern,
    )
    found = read_pth(path)
    assert list(found) == list(state)
    assert all(torch.equal(found[name], state[name]) for name in state)
    assert not any(tensor.requires_grad for tensor in found.values())


def test_numpys_old_module_name_is_known(tmp_path):
    """`perf` of files written with numpy 1."""
    path = saved(tmp_path, {"state_dict": net().state_dict(), "perf": np.float64(0.9)})
    old = tmp_path / "old.pth"
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(old, "w") as after:
        for item in before.infolist():
            content = before.read(item)
            if item.filename.endswith("data.pkl"):
                assert b"numpy._core.multiarray\n" in content
                content = content.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n")
            after.writestr(item.filename, content)
    assert len(read_pth(old)) == 7


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "no dictionary of tensors"),
        ({}, "no dictionary of tensors"),
        ({"a": 3}, "'a' is not a plain tensor"),
        ({3: torch.zeros(2)}, "'3' is not a plain tensor"),
        ({"a": torch.zeros(2).to_sparse()}, "not a plain tensor"),
        ({"a": torch.zeros(2, device="meta")}, "not a plain tensor"),
        ({"a": torch.zeros(2, dtype=torch.complex64)}, "not a plain tensor"),
        ({"a": torch.zeros(1).expand(1 << 40)}, "more than the file holds"),
        (
            net(),
            r"asks for .*torch\.nn\.modules\.container\.Sequential.*nothing in it was executed",
        ),
        ({"a": torch.zeros(2), "b": collections.deque()}, r"asks for collections\.deque"),
    ],
)
@pytest.mark.parametrize("modern", [True, False])
def test_anything_else_is_refused(tmp_path, value, message, modern):
    path = saved(tmp_path, value, _use_new_zipfile_serialization=modern)
    with pytest.raises(FormatError, match=message):
        read_pth(path)


def test_scripts_bombs_and_other_files_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "net.pth"
    with pytest.raises(InputError, match="does not exist"):
        read_pth(path)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(FormatError, match=r"net\.pth: damaged or no file of weights"):
        read_pth(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", bytes(1 << 20))
    with pytest.raises(FormatError, match="unpacks to more"):
        read_pth(path)
    saved(tmp_path, net().state_dict())
    monkeypatch.setattr(pth, "_LIMIT_BYTES", 100)
    with pytest.raises(LimitError, match="more than the limit of 100"):
        read_pth(path)


def test_a_view_beyond_its_storage_is_refused(tmp_path):
    """torch would lengthen the storage with whatever lies in memory."""
    path = saved(tmp_path, {"a": torch.arange(300.0)})
    content = path.read_bytes()
    size = b"K\x00M" + struct.pack("<H", 300)  # offset 0, then the size
    assert content.count(size) == 1
    bad = content.replace(size, b"K\x00M" + struct.pack("<H", 60_000))
    path.write_bytes(bad)
    with pytest.raises(FormatError):
        read_pth(path)


# ------------------------------------------------------------------------------------- hostile


def in_zip(content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("net/data.pkl", content)
        archive.writestr("net/byteorder", b"little")
        archive.writestr("net/version", b"3\n")
    return out.getvalue()


def in_old(content: bytes) -> bytes:
    """The format before torch 1.6: magic number, version and system, then the pickle."""
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    return b"".join(pickle.dumps(part, 2) for part in head) + content + pickle.dumps([], 2)


@pytest.mark.parametrize("wrap", [in_zip, in_old, bytes], ids=["zip", "old", "bare"])
def test_malicious_pickles_are_refused_by_name_and_execute_nothing(tmp_path, wrap):
    canary = tmp_path / "canary"
    path = tmp_path / "evil.pth"
    for name, content in malicious(canary):
        path.write_bytes(wrap(content))
        with pytest.raises(FormatError) as refusal:
            read_pth(path)
        said = str(refusal.value)
        assert not canary.exists()
        assert "nothing in it was executed" in said, said
        # torch names what a plain GLOBAL asks for; other opcodes it refuses by their number.
        module, _, attribute = name.rpartition(".")
        if content.startswith(f"\x80\x02c{module}\n{attribute}\n".encode("latin1")):
            assert f"asks for {attribute}" in said or f".{attribute}, which is refused" in said


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize(
    "count", [100, pytest.param(2500, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_mutants_end_in_our_errors(tmp_path, count, modern):
    value = {"state_dict": net().state_dict(), "perf": np.float64(0.9)}
    path = saved(tmp_path, value, _use_new_zipfile_serialization=modern)
    assert fuzz(tmp_path, path.read_bytes(), read_pth, count, ".pth") > count / 5
