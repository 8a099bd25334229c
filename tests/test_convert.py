"""Checkpoints from PyTorch and back; most tests need torch and are skipped without it."""
import argparse
import functools
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from safetensors.numpy import save_file

from conftest import CLASSES, Payload, check_one_line, names
from forks import ROOT
from golden_networks import SMALL, golden, relative
from models import NETWORKS, convert_torch, create_model
from models.checkpoint import load_checkpoint, load_weights, save_checkpoint
from models.convert_torch import IMAGENET_RULES, OURS_ONLY, RULES, convert, from_torch, to_torch
from two_layers import WITH_DROPOUT, WithDropout
from utils.errors import BadInput
from weights import make_batch, make_weight

# Those of the variants for 64x64 images whose names or shapes differ.
FORMS = [(arch, True) for arch in RULES] + [(arch, False) for arch in ("resnet18", "shufflenet", "vgg16")]


def numbered(network: ms.nn.Cell) -> dict[str, np.ndarray]:
    """Weights for a network that differ from one parameter to the next and in each."""
    weights = {}
    for i, (name, parameter) in enumerate(network.parameters_and_names()):
        first = 10 * i
        values = np.arange(first, first + parameter.size)
        weights[name] = values.astype(ms.dtype_to_nptype(parameter.dtype)).reshape(parameter.shape)
    return weights


@functools.cache
def exported(arch: str, small_images: bool = True) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Numbered weights of a network, ours and as PyTorch has them."""
    weights = numbered(create_model(arch, 7, small_images))
    return weights, to_torch(weights, "x.pth", arch, small_images)


@pytest.mark.parametrize("arch, small_images", FORMS)
def test_there_and_back(arch: str, small_images: bool) -> None:
    """The names are those of PyTorch's network where the golden files have them."""
    weights, theirs = exported(arch, small_images)
    if small_images and arch in SMALL:
        assert set(theirs) == set(golden(arch)["names"])
    back = from_torch(dict(theirs), "x.pth", arch, small_images)
    for name, parameter in back.parameters_and_names():
        if name not in OURS_ONLY.get(arch, ()):  # dropout's state starts anew
            assert (parameter.asnumpy() == weights[name]).all(), name


@pytest.mark.parametrize("arch, small_images, more, message", [
    ("resnet34", True, {}, "not a checkpoint of resnet34 for 32x32 images .*layer1.2"),
    ("resnet18", False, {}, "not a checkpoint of resnet18 for 64x64 images .*conv1.weight is mis"),
    ("resnet18", True, {"layer9": (3,)}, "layer9 is not a part of it"),
    ("resnet18", True, {"layer1.0.conv1.weight": (64, 3, 3, 3)},
     "layer1.0.conv1.weight is missing or has another shape")])
def test_weights_that_do_not_fit_are_refused(arch: str, small_images: bool, more: dict[str, tuple[int, ...]],
                                             message: str) -> None:
    state = exported("resnet18")[1] | {name: np.zeros(shape, np.float32) for name, shape in more.items()}
    with pytest.raises(BadInput, match=message):
        from_torch(state, "x.pth", arch, small_images)


TORCHVISION = {"shortcut.": "downsample.", "linear.": "fc."}


@pytest.mark.parametrize("arch, names, prefix", [
    ("resnet18", TORCHVISION, ""), ("resnet18", {}, "module."), ("resnet18", {}, "_orig_mod.module."),
    ("efficientnet", {}, "model.net."), ("resnet18", TORCHVISION, "base."), ("efficientnet", {}, "base.")])
def test_names_with_a_prefix_and_torchvisions_names(arch: str, names: dict[str, str], prefix: str) -> None:
    weights, theirs = exported(arch)
    state = {}
    for name, values in theirs.items():
        for old, new in names.items():
            name = name.replace(old, new)
        state[prefix + name] = values
    network = from_torch(state, "x.pth", arch, True)
    assert all((parameter.asnumpy() == weights[name]).all() for name, parameter in
               network.parameters_and_names() if name not in OURS_ONLY.get(arch, ()))


def test_a_safetensors_file_needs_no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert_torch.importlib.util, "find_spec", lambda name: None)
    (weights, theirs), old = exported("resnet20"), tmp_path / "old.pth"  # whatever its suffix
    save_file(theirs, old)
    with pytest.raises(BadInput, match=r"a PyTorch checkpoint; .*python -m models.convert_torch \S*old"):
        load_checkpoint(old)
    convert(old, tmp_path / "new.pth", "resnet20", True, back=False)
    again = load_checkpoint(tmp_path / "new.pth")
    assert all((again[name] == values).all() for name, values in weights.items())
    old.write_bytes(old.read_bytes()[:-9])
    with pytest.raises(BadInput, match="old.pth: damaged safetensors file"):
        convert(old, tmp_path / "new.pth", "resnet20", True, back=False)


def renamed(theirs: dict[str, np.ndarray], prefix: str, head: str = "linear.") -> dict[str, np.ndarray]:
    """A state dict under a prefix, its last layer under another name."""
    return {head + name[7:] if name.startswith("linear.") else prefix + name: values
            for name, values in theirs.items()}


QUEUE = {"module.queue": np.zeros((64, 9))}
SECOND = {"module.encoder_q.fc.2.weight": np.zeros((3, 64)), "module.encoder_q.fc.2.bias": np.zeros(3)}
AS_SAVED = {  # a state dict made of resnet20's, --prefix, --features_only, warnings
    "Lightning": (lambda x: {**renamed(x, "model.", "model.linear."), "criterion.weight": np.ones(7)}, None,
                  False, ["other arrays are ignored: 1, such as criterion.weight"]),
    "EMA": (lambda x: {**renamed(x, "ema.", "ema.linear."), **{k: v + 1 for k, v in x.items()}}, None, False,
            ["using the network at ''; to use another, specify --prefix 'ema.'", "arrays are ignored"]),
    "another head": (lambda x: renamed(x, "backbone.", "head."), None, False, ["using head as the last"]),
    "heads of two": (lambda x: {**renamed(x, "net.backbone.", "net.head."), **renamed(
        {k: v + 1 for k, v in x.items()}, "ema.backbone.", "ema.head.")}, None, False,
        ["--prefix 'ema.backbone.'", "using net.head as the last layer", "arrays are ignored"]),
    "dropout": (lambda x: renamed(x, "", "fc.1."), None, False, ["using fc.1 as the last layer"]),
    "MoCo": (lambda x: {**renamed(x, "module.encoder_q.", "module.encoder_q.fc.0."), **SECOND, **QUEUE,
                        **renamed(x, "module.encoder_k.", "module.encoder_k.fc.0.")}, None, True,
             ["to use another, specify --prefix 'module.encoder_k.'", "other arrays are ignored"]),
    "backbone": (lambda x: {k: v for k, v in x.items() if "linear" not in k}, None, True, [])}


@pytest.mark.parametrize("name", AS_SAVED)
def test_checkpoints_as_people_save_them(name: str, capsys: pytest.CaptureFixture) -> None:
    make, prefix, features_only, warnings = AS_SAVED[name]
    weights, theirs = exported("resnet20")
    if name == "EMA":
        weights = {k: v + 1 for k, v in weights.items()}
    state = make(dict(theirs))
    if features_only:
        with pytest.raises(BadInput, match="the last layer, .*linear, is missing or renamed .*--features_"):
            from_torch(state, "x.pth", "resnet20", True)
    capsys.readouterr()
    network = from_torch(state, "x.pth", "resnet20", True, prefix, features_only)
    found = {name: parameter.asnumpy() for name, parameter in network.parameters_and_names()}
    assert found.keys() == {name for name in weights if not (features_only and "classifier" in name)}
    assert all((values == weights[name]).all() for name, values in found.items())
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(warnings) and all(map(str.__contains__, lines, warnings)), lines


def test_the_other_one_of_two_networks_is_taken_by_its_prefix() -> None:
    weights, theirs = exported("resnet20")
    state = {**theirs, **{f"ema.{name}": values + 1 for name, values in theirs.items()}}
    network = from_torch(state, "x.pth", "resnet20", True, "ema.")
    assert all((p.asnumpy() == weights[name] + 1).all() for name, p in network.parameters_and_names())
    with pytest.raises(BadInput, match="x.pth: no network at --prefix 'model.'; specify '' or 'ema.'"):
        from_torch(state, "x.pth", "resnet20", True, "model.")


def test_features_can_be_had_of_a_network_without_its_last_layer(work: Path, script: Callable) -> None:
    """As of the whole one, also a second time; methods that need logits are refused."""
    network, kept = create_model("resnet20", CLASSES, True), []
    for name, features_only in (("whole", False), ("part", True)):
        (work / name).mkdir()
        weights = {name: parameter.asnumpy() for name, parameter in network.parameters_and_names()}
        state = to_torch(weights, "", "resnet20", True)
        save_checkpoint(from_torch(state, "", "resnet20", True, None, features_only),
                        work / name / "best.pth")
        for _ in range(2):
            done = script("selection.py", work, "--ckpt", f"{name}/best.pth", "--arch", "resnet20",
                          "--rate", 0.2)
            assert done.returncode == 0, done.stderr
        kept.append(np.load(work / "index/CIFAR100.kept.npy").tolist())
    assert kept[0] == kept[1] and "using the features in part/best.features.npy" in done.stdout
    assert {"best.features.npy", "best.features.json", "best.pth"} == names(work / "part")
    check_one_line(script("selection.py", work, "--ckpt", "part/best.pth", "--arch", "resnet20", "--method",
                          "entropy"), "part/best.pth: has no last layer; choose a method that needs only f")


@pytest.mark.parametrize("back", [False, True])
def test_a_network_without_rules_gets_its_line(monkeypatch: pytest.MonkeyPatch, back: bool) -> None:
    monkeypatch.setitem(NETWORKS, WITH_DROPOUT, WithDropout)
    weights = {name: p.asnumpy() for name, p in WithDropout(3, True).parameters_and_names()}
    turn = to_torch if back else from_torch
    with pytest.raises(BadInput, match=f"--arch {WITH_DROPOUT}: has no names in PyTorch; add them to RULES"):
        turn(weights, "x.pth", WITH_DROPOUT, True)


@pytest.mark.parametrize("content", [b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."])
def test_load_checkpoint_names_the_command(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "best.pth"
    path.write_bytes(content + bytes(100))
    with pytest.raises(BadInput, match=r"python -m models.convert_torch \S*best.pth NEW.pth --arch"):
        load_checkpoint(path)


def test_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert_torch.importlib.util, "find_spec", lambda name: None)
    (tmp_path / "old.pth").write_bytes(b"PK")
    with pytest.raises(BadInput, match="needs PyTorch: pip install torch"):
        convert(tmp_path / "old.pth", tmp_path / "new.pth", "resnet50", True, back=False)
    assert [path.name for path in tmp_path.iterdir()] == ["old.pth"]


def theirs(torch: Any, arch: str, small_images: bool) -> Any:
    """PyTorch's network with the golden files' weights."""
    from torch_networks import NETWORKS as THEIRS
    if not small_images and arch in IMAGENET_RULES:
        pytest.importorskip("torchvision")
    network = THEIRS[arch](small_images)
    for name, value in network.state_dict().items():
        if value.ndim:
            value.copy_(torch.from_numpy(make_weight(name, tuple(value.shape))))
    return network


@pytest.mark.parametrize("legacy", [False, True])
def test_a_converted_file_gives_pytorchs_logits(tmp_path: Path, legacy: bool) -> None:
    torch = pytest.importorskip("torch")
    state = {f"module.{name}": value for name, value in theirs(torch, "resnet20", True).state_dict().items()}
    old, new = tmp_path / "old.pth", tmp_path / "new.pth"
    beside = {"epoch": np.int64(3), "best": np.float64(0.5), "opt": argparse.Namespace(lr=0.1, path=tmp_path)}
    torch.save({"model_state_dict": state, **beside}, old, _use_new_zipfile_serialization=not legacy)
    convert(old, new, "resnet20", True, back=False)
    network = create_model("resnet20", 100, True).set_train(False)
    load_weights(network, load_checkpoint(new), "new.pth", "resnet20")
    images = make_batch(16)[0][:4]
    assert relative(network(ms.Tensor(images)).asnumpy(), golden("resnet20")["logits"]) < 1e-4


@pytest.mark.parametrize("arch, small_images", FORMS)
def test_pytorch_gets_back_the_very_weights(tmp_path: Path, arch: str, small_images: bool) -> None:
    torch = pytest.importorskip("torch")
    if arch not in SMALL:
        pytest.skip("not a network of torch_networks.py")
    network = theirs(torch, arch, small_images)
    old, new, back = (tmp_path / f"{name}.pth" for name in ("old", "new", "back"))
    torch.save(network.state_dict(), old)
    convert(old, new, arch, small_images, back=False)
    convert(new, back, arch, small_images, back=True)
    again = torch.load(back, weights_only=True)
    unused = tuple(convert_torch.THEIRS_ONLY.get(arch, ()))
    for name, value in network.state_dict().items():
        assert value.ndim == 0 or name in unused or torch.equal(value, again[name]), name
    network.load_state_dict(again)


BAD = {"hostile": pickle.dumps({"conv1.weight": Payload()}), "empty": b"", "cut": b"PK\x03\x04" + bytes(50),
       "list": [1, 2], "zip": {"conv1.weight": Payload()}, "missing": None, "epoch": {"epoch": 3}}
SAID = {"zip": "it holds posix.mkdir, which is not allowed", "list": "no state dict", "epoch": "no state d",
        "missing": "No such file"}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_and_nothing_in_them_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                        name: str) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"{name}.pth"
    if isinstance(BAD[name], bytes):
        path.write_bytes(BAD[name])
    elif BAD[name]:
        torch.save(BAD[name], path)
    with pytest.raises((BadInput, FileNotFoundError), match=f"{name}.pth") as error:
        convert_torch.read_torch(path)
    assert "\n" not in str(error.value) and SAID.get(name, "") in str(error.value)
    assert not (tmp_path / "TRAP").exists()


def test_a_state_dict_is_found_under_any_key(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch = pytest.importorskip("torch")
    weights, theirs = exported("resnet20")
    state = {f"module.{name}": torch.tensor(values) for name, values in theirs.items()}
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({"state_dict_ema": state, "nested": {"student": state}, "optimizer": optimizer, "epoch": 3},
               tmp_path / "old.pth")
    convert(tmp_path / "old.pth", tmp_path / "new.pth", "resnet20", True, back=False)
    again = load_checkpoint(tmp_path / "new.pth")
    assert all((again[name] == values).all() for name, values in weights.items())
    said = capsys.readouterr().err
    assert "using the network at 'nested.student.module.'; to use another, specify --prefix 'state_d" in said
    assert "other arrays are ignored: 97, such as state_dict_ema." in said


def test_a_checkpoint_of_ours_is_told_from_pytorchs(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    save_checkpoint(create_model("resnet20", 3, True), tmp_path / "ours.pth")
    with pytest.raises(BadInput, match="ours.pth: .* or convert a checkpoint of this project with --to-t"):
        convert_torch.read_torch(tmp_path / "ours.pth")


def run_command(folder: Path, *options: str) -> subprocess.CompletedProcess:
    """README's command, without the setting of MindSpore's log that these tests make."""
    environment = {name: value for name, value in os.environ.items() if name != "GLOG_v"}
    return subprocess.run([sys.executable, "-m", "models.convert_torch", folder / "old.pth",
                           folder / "new.pth", *options], cwd=ROOT, capture_output=True, text=True,
                          timeout=300, env=environment)


def test_the_commands_error_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "old.pth").write_bytes(BAD["hostile"])
    result = run_command(tmp_path)
    assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("convert_torch.py: error:") and "old.pth: not a PyTorch" in result.stderr
    assert not (tmp_path / "new.pth").exists()


def test_the_command_prints_no_warnings(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    save_checkpoint(create_model("resnet20", 3, True), tmp_path / "old.pth")
    result = run_command(tmp_path, "--arch", "resnet20", "--dataset", "CIFAR100", "--to-torch")
    assert result.returncode == 0 and not result.stderr, result.stderr
    assert result.stdout == f"resnet20 for CIFAR100, written to {tmp_path / 'new.pth'}\n"
    assert torch.load(tmp_path / "new.pth", weights_only=True)["linear.weight"].shape == (3, 64)
