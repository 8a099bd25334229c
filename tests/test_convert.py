"""Checkpoints from PyTorch and back; most tests need torch and are skipped without it."""
import os
import pickle
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from conftest import ROOT
from files import BadInput, load_checkpoint, save_checkpoint
from models import NETWORKS, convert_torch, create_model
from models.convert_torch import convert, from_torch, to_torch, torch_name
from test_models import golden, relative
from weights import make_batch, make_weight

# Those of the forms for 64x64 images whose names or shapes differ.
FORMS = [(arch, True) for arch in NETWORKS] + [(arch, False) for arch in ("resnet18", "shufflenet", "vgg16")]


@pytest.mark.parametrize("name, arch, small_images, theirs", [
    ("stem.0.conv.weight", "resnet50", True, "conv1.weight"),
    ("stages.1.0.conv3.bn.moving_variance", "resnet50", True, "layer2.0.bn3.running_var"),
    ("stages.3.0.shortcut.bn.gamma", "resnet18", True, "layer4.0.shortcut.1.weight"),
    ("stages.3.0.shortcut.bn.gamma", "resnet18", False, "base.layer4.0.downsample.1.weight"),
    ("classifier.bias", "resnet34", False, "base.fc.bias"),
    ("blocks.4.conv2.bn.beta", "resnet20", True, "layer2.1.bn2.bias"),
    ("stages.0.1.conv1.bn.gamma", "senet18", True, "layer1.1.bn2.weight"),
    ("stages.0.1.bn1.gamma", "senet18", True, "layer1.1.bn1.weight"),
    ("stages.2.0.shortcut.weight", "senet18", False, "layer3.0.shortcut.0.weight"),
    ("stages.0.1.excite.reduce.bias", "senet18", True, "layer1.1.fc1.bias"),
    ("blocks.15.excite.expand.weight", "efficientnet", True, "layers.15.se.se2.weight"),
    ("classifier.1.weight", "efficientnet", True, "linear.weight"),
    ("layers.0.conv.weight", "vgg16", True, "features.0.weight"),
    ("layers.3.bn.moving_mean", "vgg16", True, "features.8.running_mean"),
    ("layers.16.conv.bias", "vgg16", False, "features.40.bias"),
    ("head.bn.gamma", "shufflenet", True, "bn2.weight"),
    ("stages.1.0.conv5.conv.weight", "shufflenet", True, "layer2.0.conv5.weight"),
    ("blocks.b3.b1.bn.beta", "googlenet", True, "b3.b1.1.bias"),
    ("blocks.a4.b3.2.conv.bias", "googlenet", True, "a4.b3.6.bias"),
    ("blocks.a5.b4.1.bn.gamma", "googlenet", True, "a5.b4.2.weight"),
    ("stem.conv.weight", "googlenet", True, "pre_layers.0.weight"),
])
def test_names(name: str, arch: str, small_images: bool, theirs: str) -> None:
    assert torch_name(name, arch, small_images) == theirs


@pytest.mark.parametrize("arch, small_images", FORMS)
def test_there_and_back(arch: str, small_images: bool) -> None:
    network = create_model(arch, 7, small_images)
    weights = {}
    for name, parameter in network.parameters_and_names():
        weights[name] = parameter.asnumpy()
        if parameter.asnumpy().dtype == np.float32:
            weights[name] = make_weight(name, parameter.shape)
    state = to_torch(weights, "x.pth", arch, small_images)
    if small_images:  # the very names and, but for the classes, shapes of PyTorch's network
        assert set(state) == set(golden(arch)["names"])
    back = from_torch(state, "x.pth", arch, small_images)
    for name, parameter in back.parameters_and_names():
        if parameter.asnumpy().dtype == np.float32:  # dropout's state starts anew
            assert (parameter.asnumpy() == weights[name]).all()


def test_another_network_or_form_is_refused() -> None:
    weights = {name: p.asnumpy() for name, p in create_model("resnet18", 7, True).parameters_and_names()}
    state = to_torch(weights, "x.pth", "resnet18", True)
    with pytest.raises(BadInput, match="not a checkpoint of resnet34 for 32x32 images .*layer1.2"):
        from_torch(state, "x.pth", "resnet34", True)
    with pytest.raises(BadInput, match="not a checkpoint of resnet18 for 64x64 images .*base.fc.weight"):
        from_torch(state, "x.pth", "resnet18", False)
    with pytest.raises(BadInput, match="(layer9 is not a part of it)"):
        from_torch({**state, "layer9": weights["classifier.bias"]}, "x.pth", "resnet18", True)
    state["layer1.0.conv1.weight"] = state["layer1.0.conv1.weight"][:, :3]
    with pytest.raises(BadInput, match="layer1.0.conv1.weight is missing or has another shape"):
        from_torch(state, "x.pth", "resnet18", True)


@pytest.mark.parametrize("content", [b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."])
def test_load_checkpoint_names_the_command(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "best.pth"
    path.write_bytes(content + bytes(100))
    with pytest.raises(BadInput, match=r"python -m models.convert_torch \S*best.pth NEW.pth --arch"):
        load_checkpoint(path)


def test_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert_torch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="needs PyTorch: pip install torch"):
        convert(tmp_path / "old.pth", tmp_path / "new.pth", "resnet50", True, back=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("legacy", [False, True])
def test_a_converted_file_gives_pytorchs_logits(tmp_path: Path, legacy: bool) -> None:
    torch = pytest.importorskip("torch")
    from torch_networks import NETWORKS as THEIRS
    network = THEIRS["resnet20"](True)
    for name, value in network.state_dict().items():
        if value.ndim:
            value.copy_(torch.from_numpy(make_weight(name, tuple(value.shape))))
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    old, new, back = tmp_path / "old.pth", tmp_path / "new.pth", tmp_path / "back.pth"
    torch.save({"state_dict": state, "epoch": 3}, old, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(BadInput, match="models.convert_torch"):
        load_checkpoint(old)
    convert(old, new, "resnet20", True, back=False)
    ours = from_torch(convert_torch.read_torch(old), "old.pth", "resnet20", True).set_train(False)
    assert {name for name, _ in ours.parameters_and_names()} == load_checkpoint(new).keys()
    images = make_batch(16)[0][:4]
    assert relative(ours(ms.Tensor(images)).asnumpy(), golden("resnet20")["logits"]) < 1e-4
    convert(new, back, "resnet20", True, back=True)
    again = torch.load(back, weights_only=True)
    for name, value in network.state_dict().items():
        assert value.ndim == 0 or torch.equal(value, again[name])
    network.load_state_dict(again)


@pytest.mark.parametrize("arch, small_images", [form for form in FORMS if form[0] != "resnet34"])
def test_pytorch_loads_what_is_converted(arch: str, small_images: bool) -> None:
    torch = pytest.importorskip("torch")
    from torch_networks import NETWORKS as THEIRS
    weights = {name: p.asnumpy() for name, p in create_model(arch, 100, small_images).parameters_and_names()}
    state = to_torch(weights, "x.pth", arch, small_images)
    THEIRS[arch](small_images).load_state_dict({name: torch.tensor(values) for name, values in state.items()})


class Hostile:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("hostile",)


def test_bad_files_are_one_line(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    for name, content in (("hostile.pth", pickle.dumps({"conv1.weight": Hostile()})), ("empty.pth", b""),
                          ("cut.pth", b"PK\x03\x04" + bytes(50))):
        (tmp_path / name).write_bytes(content)
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"conv1.weight": Hostile()}, tmp_path / "zip.pth")
    save_checkpoint(create_model("resnet20", 3, True), tmp_path / "ours.pth")
    for name in ("hostile", "zip", "empty", "cut", "list", "ours", "missing"):
        with pytest.raises(BadInput, match=f"{name}.pth: "):
            convert_torch.read_torch(tmp_path / f"{name}.pth")
    assert not (tmp_path / "hostile").exists() and not Path("hostile").exists()


def test_the_command_as_documented(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "old.pth").write_bytes(pickle.dumps({"conv1.weight": Hostile()}))
    command = [sys.executable, "-m", "models.convert_torch", tmp_path / "old.pth", tmp_path / "new.pth"]
    # Without the one that these tests set.
    environment = {name: value for name, value in os.environ.items() if name != "GLOG_v"}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment)
    assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("convert_torch.py: error:")
    assert "old.pth: not a PyTorch checkpoint" in result.stderr
    assert not (tmp_path / "new.pth").exists()
