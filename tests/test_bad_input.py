"""Bad and hostile input over all scripts.

Every command must end with exit status 2 and one line on standard error that names the culprit, and change no
file. The commands run in one folder that holds all the bad files.
"""
import os
import pickle
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from mindspore.train.checkpoint_pb2 import Checkpoint

from conftest import CLASSES, TRAIN, TRAINED, Payload, check_one_line, npy, write_cifar, write_tiny
from forks import ROOT, Forks
from models import create_model
from models.checkpoint import save_checkpoint
from two_layers import NAME

# (command, culprit): a part of the error. {bad} is the working folder, which holds the bad files. One row per
# kind of mistake and script: what only one reader refuses is with that reader's tests.
OPTIONS = [
    ("train.py --dataset CIFAR1000", "--dataset"),
    ("train.py --arch resnet19", "--arch"),
    ("train.py --device GPU", "--device GPU"),
    ("train.py --epoch 1.5", "--epoch"),
    ("train.py --lr nan", "--lr"),
    ("train.py --save maybe", "--save"),
    ("train.py --save False --resume", "--resume"),
    ("train.py --prune x.bin --kept x.kept.npy", "--kept: not allowed with argument --prune"),
    ("train.py --seed 4294967296", "--seed"),
    ("train.py --image_size 7", "--image_size 7"),
    ("train.py --arch vgg16 --image_size 16", "--arch vgg16: needs images of 32 pixels or more, these have"),
    ("train.py --epochs-of-training 3", "--epochs-of-training: not an option; --help lists them"),
    ("train.py --arch resnet18 --image_size 8 --batch_size 199", "a device gets a batch of one of the 200"),
    ("train.py --arch resnet18 --image_size 8 --batch_size 1", "smallest feature map has one pixel, which"),
    ("train.py --epochs 3", "--epochs: not an option; did you mean --epoch?"),
    ("train.py --batch-size=64", "--batch-size: not an option; did you mean --batch_size?"),
    ("train.py --model resnet18", "--model: not an option; did you mean --model_dir?"),
    ("train.py resnet18", "resnet18: not an option"),
    ("selection.py --ckpt ~/best.pth", f"{os.path.expanduser('~')}/best.pth"),
    ("selection.py --rate nan --ckpt best.pth", "--rate"),
    ("selection.py --method best --ckpt best.pth", "--method"),
    ("selection.py", "--ckpt"),
    ("selection.py --ckpt best.pth --arch resnet20 --rate 0.001", "--rate: 0.001 keeps none of 200"),
    ("selection.py --ckpt best.pth --keep 1.5", "--keep: '1.5' is neither one of"),
    ("selection.py --ckpt best.pth --per_class perhaps", "--per_class"),
    ("selection.py --ckpt best.pth --method dual --keep middle --dual_power 2", "--dual_power: not a sett"),
    ("selection.py --method aum", "--dynamics: missing, and so is --ckpt; --method aum needs dynamics"),
    ("selection.py --method entropy", "--logits: missing"),
    ("selection.py --dynamics dynamics.npy --method aum --keep best",
     "--features: missing, and so is --ckpt"),
    ("selection.py --score s.npy --method aum", "--score: replaces --method aum; pass one of the two"),
    ("selection.py --score s.npy --keep 0.3 --labels labels.npy", "--hard: missing; high or low, the end of"),
    ("selection.py --ckpt best.pth --logits l.npy --method entropy",
     "--logits: replaces --ckpt; pass one of"),
    ("selection.py --features f.npy",
     "--labels: missing, and so is --dataset; pass one, for the labels of --f"),
    ("selection.py --ckpt best.pth --method moderate --dynamics dynamics.npy", "--dynamics"),
    ("selection.py --ckpt best.pth --features features.npy", "--features"),
    ("selection.py --features f.npy --labels labels.npy --dataset tiny",
     "--dataset: has no effect with --lab"),
    ("selection.py --features f.npy --labels labels.npy --workers 2",
     "--workers: has no effect with --labels"),
    ("selection.py --features features.npy --method el2n", "--features"),
    ("compare.py --methods random", "--out"),
    ("compare.py --out results --methods best", "--methods"),
    ("compare.py --out results --methods aum:rate=0.3", "--methods: aum:rate=0.3: 'rate' is none of"),
    ("compare.py --out results --methods aum:keep=0.1:keep=0.3", "aum:keep=0.1:keep=0.3 gives keep twice"),
    ("compare.py --out results --dataset toy --base_arch vgg16 --arch resnet6", "--base_arch vgg16: needs"),
    ("compare.py --out results --devices 0 x", "--devices"),
    ("compare.py --out results --methods aum:keep=mid", "aum:keep=mid: keep: 'mid' is neither one"),
    ("compare.py --out results --methods moderate:dual_power=3", "dual_power: not a setting of moderate"),
    ("compare.py --out results --methods aum --keep 0.7",
     "--keep: an option of a method follows its name: aum:"),
    ("compare.py --out results --rates 0", "--rates"),
    ("compare.py --out results --seeds -1", "--seeds"),
    ("robust/corrupt-cifar.py --rate 0.3", "--rate"),
    ("robust/noisy-cifar.py --rate 1.2", "--rate"),
    ("robust/noisy-tiny.py --share -1", "--share"),
    ("robust/attack-cifar.py --attack FGSM", "--attack"),
    ("robust/attack-cifar.py --eps 3", "--eps"),
    ("robust/attack-cifar.py --data data --eps 1/512 --ckpt best.pth", "--eps"),
    ("robust/attack-tiny.py --arch none", "--arch"),
]
FILES = [
    ("train.py --data nowhere", "nowhere/cifar-100-python/train"),
    ("train.py --data " + "x" * 300, "cifar-100-python/train: missing"),
    ("train.py --data {bad}/cut", "cut/cifar-100-python/train"),
    ("train.py --data {bad}/folder", "folder/cifar-100-python/meta"),
    ("train.py --classes 6", "--classes 6"),
    ("robust/noisy-cifar.py --data data --classes 6", "--classes 6"),
    ("train.py --prune nowhere.bin", "nowhere.bin"),
    ("train.py --prune text.bin", "text.bin"),
    ("train.py --prune all.bin", "all.bin"),
    ("train.py --arch resnet18 --pretrained best.pth", "best.pth: not a checkpoint of resnet18"),
    ("train.py --kept text.txt", "text.txt: 'bee/3.jpg' is not the file of a training image; list paths"),
    ("train.py --prune .", "."),
    ("train.py --arch resnet20 --model_dir text.bin", "text.bin"),
    ("train.py --arch resnet20 --model_dir /proc/ckpt", "/proc/ckpt"),
    ("selection.py --ckpt nowhere.pth", "nowhere.pth"),
    ("selection.py --ckpt text.bin --arch resnet20", "text.bin"),
    ("selection.py --ckpt cut.pth --arch resnet20", "cut.pth"),
    ("selection.py --ckpt flipped.pth --arch resnet20", "flipped.pth"),
    ("selection.py --ckpt best.pth --arch resnet18", "best.pth"),
    ("selection.py --ckpt nan.pth --arch resnet20", "nan.pth"),
    ("selection.py --ckpt best.pth --method el2n", "dynamics.npy"),
    ("selection.py --dataset CIFAR100 --dynamics text.bin --method el2n", "text.bin"),
    ("selection.py --features nowhere.npy --labels nowhere.npy", "nowhere.npy"),
    ("selection.py --features beyond.npy --labels labels.npy", "beyond.npy: holds numbers that are not "),
    ("selection.py --ckpt best.pth --arch resnet20 --save text.bin", "text.bin"),
    ("selection.py --ckpt best.pth --arch resnet20 --save /proc/index", "/proc/index"),
    ("train.py --dataset tiny --data nowhere", "nowhere/train"),
    ("train.py --dataset tiny --data {bad}/tiny-cut", "n00000009_3.JPEG"),
    ("selection.py --dataset folder --data nowhere --method random", "nowhere/train"),
    ("train.py --dataset CIFAR100C", "robust/corrupt-cifar.py"),
    ("train.py --dataset CIFAR100A", "robust/attack-cifar.py"),
    ("train.py --dataset CIFAR100N", "robust/noisy-cifar.py"),
    ("train.py --dataset tinyC --data {bad}/tiny", "robust/corrupt-tiny.py"),
    ("train.py --dataset tinyA --data {bad}/tiny", "robust/attack-tiny.py"),
    ("train.py --dataset tinyN --data {bad}/tiny", "robust/noisy-tiny.py"),
    ("robust/corrupt-cifar.py --data nowhere", "nowhere/cifar-100-python/train"),
    ("compare.py --out text.bin", "text.bin"),
    ("robust/attack-cifar.py --data data --ckpt best.pth", "best.pth"),
    ("robust/corrupt-tiny.py --data {bad}/original/tiny-imagenet-200", "original/tiny-imagenet-200"),
    ("robust/noisy-tiny.py --data nowhere", "nowhere"),
    ("robust/attack-tiny.py --data {bad}/tiny --arch resnet18 --ckpt best.pth", "best.pth"),
]
HOSTILE = [
    ("train.py --data {bad}/hostile-train", "hostile-train/cifar-100-python/train"),
    ("train.py --data {bad}/hostile-test", "hostile-test/cifar-100-python/test"),
    ("train.py --data {bad}/hostile-meta", "hostile-meta/cifar-100-python/meta"),
    ("train.py --data {bad}/laughs", "laughs/cifar-100-python/meta"),
    ("train.py --prune payload.bin", "payload.bin"),
    (f"train.py {' '.join(map(str, TRAINED))} --model_dir {{bad}}/resume --resume", "last.pth"),
    ("selection.py --dataset CIFAR100 --method el2n --dynamics hostile.npy", "hostile.npy"),
    ("selection.py --features hostile.npy --labels hostile.npy", "hostile.npy"),
    ("selection.py --ckpt payload.bin --arch resnet20", "payload.bin"),
    ("selection.py --ckpt payload.pth --arch resnet20", "payload.pth"),
    ("selection.py --ckpt overflow.pth --arch resnet20", "overflow.pth"),
    ("selection.py --ckpt giant.pth --arch resnet20", "giant.pth"),
    ("train.py --dataset CIFAR100C --data {bad}/hostile-images", "img.bin"),
    ("train.py --dataset CIFAR100C --data {bad}/hostile-targets", "targets.bin"),
    ("train.py --dataset CIFAR100A --data {bad}/hostile-images", "cifar_train.npy"),
    ("train.py --dataset CIFAR100N --data {bad}/hostile-images", "cifar.npy"),
    ("train.py --dataset tinyA --data {bad}/hostile-tiny/tiny-imagenet-200", "attack/tiny_img.npy"),
    ("train.py --dataset tinyN --data {bad}/hostile-tiny/tiny-imagenet-200", "noisy/tiny_target.npy"),
    ("train.py --dataset tinyC --data {bad}/hostile-tiny/tiny-imagenet-200", "corrupt.json"),
]
COMMANDS = [*OPTIONS, *FILES, *HOSTILE]


def checkpoint(dims: list[int], content: bytes) -> bytes:
    """A MindSpore checkpoint of one tensor whose shape does not fit its content."""
    message = Checkpoint()
    value = message.value.add()
    value.tag = "classifier.bias"
    value.tensor.dims.extend(dims)
    value.tensor.tensor_type = "Float32"
    value.tensor.tensor_content = content
    return message.SerializeToString()


def change(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Path:
    """The working folder: data/ is whole, most of the rest is bad."""
    folder = tmp_path_factory.mktemp("bad")
    cifar = write_cifar(folder / "data")
    payload = pickle.dumps({"data": Payload()})

    def cifar_with(name: str, part: str, content: bytes) -> None:
        shutil.copytree(cifar / "cifar-100-python", folder / name / "cifar-100-python")
        change(folder / name / "cifar-100-python" / part, content)

    cifar_with("cut", "train", (cifar / "cifar-100-python/train").read_bytes()[:-999])
    cifar_with("folder", "meta", b"")
    (folder / "folder/cifar-100-python/meta").unlink()
    (folder / "folder/cifar-100-python/meta").mkdir()
    for part in ("train", "test", "meta"):
        cifar_with(f"hostile-{part}", part, payload)
    laughs = []
    for _ in range(60):
        laughs = [laughs, laughs]
    cifar_with("laughs", "meta", pickle.dumps({"fine_label_names": laughs}))

    change(folder / "text.bin", b"no pickle and no checkpoint\n")
    change(folder / "text.txt", b"bee/3.jpg\n")
    change(folder / "all.bin", pickle.dumps(np.arange(TRAIN)))
    change(folder / "payload.bin", payload)
    with zipfile.ZipFile(folder / "payload.pth", "w") as archive:
        archive.writestr("archive/data.pkl", payload)
    network = create_model("resnet20", CLASSES, True)
    save_checkpoint(network, folder / "best.pth")
    content = (folder / "best.pth").read_bytes()
    change(folder / "cut.pth", content[:-5000])
    change(folder / "flipped.pth", content[:9000] + bytes([content[9000] ^ 1]) + content[9001:])
    change(folder / "overflow.pth", checkpoint([1], b"12345678" * 100))
    change(folder / "giant.pth", checkpoint([2 ** 40, 2 ** 20], b"1234"))
    network.stem[0].bn.beta.set_data(network.stem[0].bn.beta + np.nan)
    save_checkpoint(network, folder / "nan.pth")
    hostile_array = npy(np.array([Payload()], object))
    change(folder / "hostile.npy", hostile_array)
    np.save(folder / "beyond.npy", np.array([[1e39], [2], [3], [4]]))  # beyond float32's range
    np.save(folder / "labels.npy", np.zeros(4, int))

    tiny = shutil.move(write_tiny(folder / "tiny-good"), folder / "tiny")
    image = "train/n00000009/images/n00000009_3.JPEG"
    shutil.copytree(tiny, folder / "tiny-cut")
    change(folder / "tiny-cut" / image, (tiny / image).read_bytes()[:-300])
    shutil.copytree(tiny, folder / "original/tiny-imagenet-200")

    for name in ("hostile-images", "hostile-targets"):
        shutil.copytree(cifar / "cifar-100-python", folder / name / "cifar-100-python")
    for name in ("attack/cifar_train.npy", "noisy/cifar.npy", "noisy/cifar_changed.npy"):
        change(folder / "hostile-images" / name, hostile_array)
    change(folder / "hostile-images/noisy/cifar.json", b'{"images": 200}')
    for name in ("img.bin", "targets.bin"):
        change(folder / "hostile-images/cifar-100-corrupt" / name, payload)
    whole = np.zeros((TRAIN, 32, 32, 3), np.uint8)
    change(folder / "hostile-targets/cifar-100-corrupt/img.bin", pickle.dumps(whole))
    change(folder / "hostile-targets/cifar-100-corrupt/targets.bin", payload)

    hostile = folder / "hostile-tiny/tiny-imagenet-200"
    shutil.copytree(tiny, hostile)
    change(hostile / "corrupt.json", b"[" * 100_000)
    images = len(list(tiny.glob("train/*/images/*.JPEG")))
    change(folder / "hostile-tiny/attack/tiny_img.npy", hostile_array)
    change(folder / "hostile-tiny/noisy/tiny_img.npy", npy(np.zeros((images, 64, 64, 3), np.uint8)))
    change(folder / "hostile-tiny/noisy/tiny_target.npy", hostile_array)

    run = shutil.copytree(trained, folder / "resume/CIFAR100" / NAME)
    change(run / "last.pth", payload)
    return folder


def snapshot(folder: Path) -> dict[str, tuple]:
    """Of every file, folder and link below a folder, what would change if it were written to or replaced."""
    found = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        written = () if path.is_dir() else (status.st_mtime_ns, status.st_size)
        found[str(path)] = status.st_ino, *written
    return found


@pytest.mark.parametrize("command, culprit", COMMANDS)
def test_one_line_names_the_culprit_and_no_file_changes(bad: Path, script, command: str, culprit: str
                                                        ) -> None:
    """Nor is a payload run, which would make a folder."""
    before = snapshot(bad)
    name, *options = shlex.split(command.format(bad="."))
    result = script(name, bad, *options)
    check_one_line(result, culprit)
    assert result.stderr.startswith(f"{Path(name).name}: error: ")
    assert snapshot(bad) == before


def test_a_simulated_device_is_refused(forks: Forks, tmp_path: Path) -> None:
    run = forks.start(tmp_path, "train.py", "--dataset", "toy",
                      environment={"MS_SIMULATION_LEVEL": "1"}).finish()
    assert run.returncode == 2 and run.err.startswith("train.py: error: MS_SIMULATION_LEVEL: set in the ")


def test_help_and_option_errors_take_little_longer_than_importing_mindspore(tmp_path: Path) -> None:
    """In processor time: other tests may be using this machine."""
    def seconds(*command: object) -> float:
        start = os.times()
        subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True)
        end = os.times()
        return end.children_user + end.children_system - start.children_user - start.children_system

    imports = min(seconds("-c", "import mindspore") for _ in range(2))
    for command in (["train.py", "--help"], ["selection.py", "--rate", "2", "--ckpt", "x"]):
        assert any(seconds(ROOT / command[0], *command[1:]) < 1.5 * imports for _ in range(2)), command
