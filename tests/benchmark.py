"""Speed on this machine: `python tests/benchmark.py`; beside PyTorch where torch is installed.

MindSpore and PyTorch run in processes of their own, alternating in one run, so that each has its own settings
and both see the same machine. Medians of the rounds, warm-up and compilation apart. About ten minutes on two
cores.
"""
import argparse
import csv
import importlib.util
import io
import multiprocessing as mp
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
BATCH = 128
STEPS = 20  # of a round with and without training dynamics
IMAGENET, IMAGENET_CLASS = 1_281_167, 1281  # images, and of a class
WRITTEN_ROWS = 2 ** 12  # at a time
MOST_LINKS = 50_000  # to a file; ext4 allows 65,000
NETWORK_BATCH = 32  # of every network in turn
PHOTOS, REPEATS, PHOTO_BATCH = 256, 4, 128  # JPEG files, how often each is in a round, images a batch


def images_and_labels() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return (generator.standard_normal((BATCH, 3, 32, 32), np.float32),
            generator.integers(0, 100, BATCH, dtype=np.int32))


def mindspore_round(task: str) -> Callable[[], None]:
    from utils.device import set_up
    set_up("CPU", 0)
    return mindspore_batch(task, "resnet50", BATCH)


def mindspore_batch(task: str, arch: str, batch: int) -> Callable[[], None]:
    """One call of the result is one batch of 32x32 images, as the scripts compute it."""
    import mindspore as ms
    import train
    from models import create_model
    from models.layers import fold_batchnorm
    network = create_model(arch, 100, small_images=True)
    images, labels = (ms.Tensor(values[:batch]) for values in images_and_labels())
    if task == "training":
        network.set_train(True)
        step = train.make_train_step(network, train.make_optimizer(network, 5e-4, 0.1))
        return lambda: step(images, labels)[0].asnumpy()
    fold_batchnorm(network)

    @ms.jit
    def extract(x: ms.Tensor) -> ms.Tensor:
        return network.features(x)

    return lambda: extract(images).asnumpy()


def torch_round(task: str, channels_last: bool) -> Callable[[], None]:
    """The same batch in eager PyTorch."""
    import torch
    from torch_networks import NETWORKS
    form = torch.channels_last if channels_last else torch.contiguous_format
    network = NETWORKS["resnet50"](True).to(memory_format=form)
    images, labels = images_and_labels()
    x, y = torch.from_numpy(images).to(memory_format=form), torch.from_numpy(labels).long()
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)

    def training() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()

    def extraction() -> None:
        with torch.inference_mode():
            network.features(x)

    network.train(task == "training")
    return training if task == "training" else extraction


def work(prepare: Callable[..., Callable[[], None]], arguments: tuple, pipe: Connection) -> None:
    run = prepare(*arguments)
    while pipe.recv():
        start = time.perf_counter()
        run()
        pipe.send(time.perf_counter() - start)


def alternate(contestants: dict[str, tuple[Callable[..., Callable[[], None]], tuple]], rounds: int
              ) -> dict[str, list[float]]:
    """Seconds of each round of those present, in turn, each in a process of its own; the first is warm-up.

    Args:
        contestants: by name, what prepares a round, and its arguments; those of PyTorch need torch.
    """
    context = mp.get_context("spawn")
    pipes = {}
    for name, (prepare, arguments) in contestants.items():
        if not name.startswith("PyTorch") or importlib.util.find_spec("torch"):
            pipes[name], theirs = context.Pipe()
            # Not daemons, which may have no processes of their own.
            context.Process(target=work, args=(prepare, arguments, theirs)).start()
            theirs.close()  # so that a worker's end is seen here
    seconds = {name: [] for name in pipes}
    for _ in range(rounds + 1):
        for name, pipe in pipes.items():
            pipe.send(True)
            seconds[name].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(False)
    return seconds


def compare(task: str, rounds: int) -> None:
    """Print images per second of every framework present, and MindSpore's ratio to the best other."""
    seconds = alternate({"MindSpore": (mindspore_round, (task,)),
                         "PyTorch NCHW": (torch_round, (task, False)),
                         "PyTorch channels-last": (torch_round, (task, True))}, rounds)
    speeds = {name: BATCH / statistics.median(times[1:]) for name, times in seconds.items()}
    for name, speed in speeds.items():
        print(f"ResNet-50 {task}, batch {BATCH}, {name}: {speed:.1f} img/s "
              f"(first call {seconds[name][0]:.1f} s)", flush=True)
    if len(speeds) > 1:
        best = max(speed for name, speed in speeds.items() if name != "MindSpore")
        print(f"ResNet-50 {task}: MindSpore / PyTorch's better layout = {speeds['MindSpore'] / best:.2f}",
              flush=True)


def network_speed(arch: str, rounds: int) -> None:
    """Print images per second of a network; run in a process of its own."""
    from utils.device import set_up
    set_up("CPU", 0)
    speeds = {}
    for task in ("training", "extraction"):
        run = mindspore_batch(task, arch, NETWORK_BATCH)
        run()
        seconds = []
        for _ in range(rounds):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        speeds[task] = NETWORK_BATCH / statistics.median(seconds)
    print(f"{arch}, batch {NETWORK_BATCH}: training {speeds['training']:.1f} img/s, "
          f"extraction {speeds['extraction']:.1f} img/s")


def networks(rounds: int) -> None:
    """Print every network's images per second, and which of its kernels are oneDNN's reference loops."""
    from models import NETWORKS
    for arch in NETWORKS:
        command = [sys.executable, __file__, "--network", arch, "--rounds"]
        speed = subprocess.run([*command, str(rounds)], check=True, capture_output=True,
                               text=True).stdout.strip()
        # Once more for the kernels: to print them takes time.
        trace = subprocess.run([*command, "1"], check=True, capture_output=True, text=True,
                               env={**os.environ, "ONEDNN_VERBOSE": "1"}).stdout
        print(f"{speed}; reference kernels: {', '.join(reference_kernels(trace)) or 'none'}", flush=True)


def reference_kernels(trace: str) -> list[str]:
    """Reference kernels in what oneDNN prints with ONEDNN_VERBOSE=1: kind, implementation, direction.

    Raises:
        ValueError: it shows no kernels at all.
    """
    rows = [line.split(",") for line in trace.splitlines() if ",exec,cpu," in line]
    if not rows:
        raise ValueError("ONEDNN_VERBOSE=1 showed no kernels")
    start = rows[0].index("exec")
    kinds = {" ".join(row[start + 2:start + 5]) for row in rows}
    return sorted(kind for kind in kinds if "ref" in kind.split()[1])


def pipeline(rounds: int) -> None:
    """Print images per second of CIFAR-100's crop, flip and normalize."""
    images = np.random.default_rng(0).integers(0, 256, (50_000, 32, 32, 3), np.uint8)
    time_pipeline("CIFAR100", images, BATCH, rounds)


def tiny_pipeline(rounds: int) -> None:
    """Print images per second of Tiny ImageNet's JPEG decoding, crop, resizes, flip and normalize."""
    from PIL import Image
    generator = np.random.default_rng(0)
    images = []
    for _ in range(5000):
        small = Image.fromarray(generator.integers(0, 256, (16, 16, 3), np.uint8))
        file = io.BytesIO()
        # A file has 2 kB, as the real ones.
        small.resize((64, 64), Image.Resampling.BICUBIC).save(file, format="JPEG")
        images.append(file.getvalue())
    time_pipeline("tiny", images, 256, rounds)


def write_photos(folder: Path) -> None:
    """PHOTOS JPEG files of 500x375 pixels and about 100 kB, as ImageNet's, in one class."""
    from PIL import Image
    generator = np.random.default_rng(0)
    for part, photos in (("train", PHOTOS), ("val", 1)):
        (folder / part / "class").mkdir(parents=True)
        for i in range(photos):
            pixels = generator.normal(0, 8, (375, 500, 3))
            for side, share in ((4, 0.5), (16, 0.3), (64, 0.2)):
                coarse = Image.fromarray(generator.integers(0, 256, (side, side, 3), np.uint8))
                pixels += share * np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC))
            photo = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
            photo.save(folder / part / "class" / f"{i}.jpg", quality=93)


def folder_round(folder: Path, workers: int) -> Callable[[], None]:
    """One call of the result is one pass over the photos, each REPEATS times, as train.py has them at 224."""
    from datasets import open_dataset
    from datasets.pipeline import TrainingBatches
    data = open_dataset("folder", folder)
    batches = TrainingBatches(data, np.tile(data.train.ids, REPEATS), PHOTO_BATCH, 0, workers)

    def run() -> None:
        for _ in batches.epoch(0):
            pass

    return run


class Photos:
    """The same for PyTorch: torchvision's RandomResizedCrop, flip, ToTensor, Normalize of Pillow images."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(str(path) for path in (folder / "train/class").iterdir()) * REPEATS

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple:
        import torch
        from PIL import Image
        with open(self.paths[i], "rb") as file:
            image = Image.open(file).convert("RGB")
        width, height = image.size
        top, left, h, w = self.box(height, width)
        image = image.crop((left, top, left + w, top + h)).resize((224, 224), Image.Resampling.BILINEAR)
        if torch.rand(1) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        tensor = torch.from_numpy(np.array(image, np.uint8, copy=True)).permute((2, 0, 1)).contiguous()
        tensor = tensor.to(torch.float32).div(255)
        mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
        return tensor.sub_(mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1)), 0

    @staticmethod
    def box(height: int, width: int) -> tuple[int, int, int, int]:
        """Top, left, height and width of a part, as torchvision draws it."""
        import torch
        narrowest, widest = torch.log(torch.tensor((3 / 4, 4 / 3))).tolist()
        for _ in range(10):
            area = height * width * torch.empty(1).uniform_(0.08, 1.0).item()
            ratio = torch.exp(torch.empty(1).uniform_(narrowest, widest)).item()
            w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
            if 0 < w <= width and 0 < h <= height:
                return (torch.randint(0, height - h + 1, (1,)).item(),
                        torch.randint(0, width - w + 1, (1,)).item(), h, w)
        side = min(height, width)
        return (height - side) // 2, (width - side) // 2, side, side


def torch_folder_round(folder: Path, workers: int) -> Callable[[], None]:
    from torch.utils.data import DataLoader
    loader = DataLoader(Photos(folder), PHOTO_BATCH, shuffle=True, num_workers=workers,
                        persistent_workers=True)

    def run() -> None:
        for _ in loader:
            pass

    return run


def folder_pipeline(rounds: int) -> None:
    """Print images per second of JPEG files of 500x375 pixels at 224, here and by PyTorch's DataLoader."""
    from utils.processes import usable_cores
    workers = usable_cores()
    with tempfile.TemporaryDirectory() as folder:
        write_photos(Path(folder))
        kilobytes = statistics.mean(path.stat().st_size for path in Path(folder).glob("train/*/*")) / 1000
        print(f"{PHOTOS} JPEG files of 500x375 pixels and {kilobytes:.0f} kB, at 224, {workers} workers",
              flush=True)
        seconds = alternate({"here": (folder_round, (Path(folder), workers)), "PyTorch's DataLoader": (
            torch_folder_round, (Path(folder), workers))}, rounds)
    speeds = {name: PHOTOS * REPEATS / statistics.median(times[1:]) for name, times in seconds.items()}
    for name, speed in speeds.items():
        print(f"folder input pipeline, {name}: {speed:.0f} img/s", flush=True)
    if len(speeds) > 1:
        ratio = speeds["here"] / speeds["PyTorch's DataLoader"]
        print(f"folder input pipeline: here / PyTorch's DataLoader = {ratio:.2f}", flush=True)


def time_pipeline(name: str, images: np.ndarray | list[bytes], batch_size: int, rounds: int) -> None:
    from datasets import SOURCES, DataSet
    from datasets.images import Split
    from datasets.pipeline import TrainingBatches
    split = Split(images, np.zeros(len(images), np.int32))
    data = DataSet(name, split, split, ["0"], SOURCES[name], "")
    batches = TrainingBatches(data, np.arange(len(images)), batch_size, seed=0)
    speeds = []
    for number in range(rounds):
        start = time.perf_counter()
        for _ in batches.epoch(number):
            pass
        speeds.append(len(images) / (time.perf_counter() - start))
    print(f"{name} input pipeline: {statistics.median(speeds):.0f} img/s", flush=True)


def start(_: int) -> None:
    """Print the seconds from train.py's start to ResNet-50's first step: loading, data, compilation."""
    with tempfile.TemporaryDirectory() as folder:
        generator = np.random.default_rng(0)
        data = Path(folder, "cifar-100-python")
        data.mkdir()
        for name, n in (("train", 2 * BATCH), ("test", BATCH)):
            table = {"data": generator.integers(0, 256, (n, 3072), np.uint8), "fine_labels": [0] * n}
            (data / name).write_bytes(pickle.dumps(table))
        (data / "meta").write_bytes(pickle.dumps({"fine_label_names": [str(i) for i in range(100)]}))
        begun = time.perf_counter()
        subprocess.run([sys.executable, ROOT / "train.py", "--data", folder, "--epoch", "1",
                        "--model_dir", folder],
                       check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - begun
        row = next(csv.DictReader(open(Path(folder, "CIFAR100/resnet50/log.csv"))))
    step = BATCH / float(row["images_per_second"])  # of the second of the two steps: the first one compiles
    before = seconds - float(row["test_seconds"]) - 2 * step
    print(f"from the start of train.py to the first step of ResNet-50: {before:.1f} s, to its end "
          f"{before + step:.1f} s", flush=True)


def dynamics(rounds: int) -> None:
    """Print what recording training dynamics adds to resnet20's steps: rounds with and without it in turn."""
    from utils.device import set_up
    set_up("CPU", 0)
    import train
    from models import create_model
    from utils.runs import Dynamics
    images, labels = images_and_labels()
    batch = [(np.arange(BATCH), images, labels)]
    seconds = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder:
        record = Dynamics(Path(folder, "dynamics.npy"), 50_000, 0)
        steps = {}
        for on in seconds:
            network = create_model("resnet20", 100, small_images=True).set_train(True)
            steps[on] = train.make_train_step(network, train.make_optimizer(network, 5e-4, 0.1), dynamics=on)
            train.run_batches(steps[on], iter(batch), 1, "warm-up", record if on else None)
        for _ in range(rounds):
            for on, step in steps.items():
                begun = time.perf_counter()
                train.run_batches(step, iter(batch * STEPS), STEPS, "", record if on else None)
                if on:
                    record.finish_epoch()
                seconds[on].append(time.perf_counter() - begun)
    ratios = [on / off for off, on in zip(seconds[False], seconds[True])]
    print(f"resnet20, batch {BATCH}, {STEPS} steps: {statistics.median(seconds[False]):.2f} s without "
          f"training dynamics, {statistics.median(seconds[True]):.2f} s with them; "
          f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})", flush=True)


def release_distances(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The release's formula in straightforward NumPy."""
    centers = np.stack([np.median(features[labels == c], axis=0) for c in np.unique(labels)])
    return np.linalg.norm(features.astype(np.float64) - centers.astype(np.float64)[labels], axis=1)


def methods(rounds: int) -> None:
    """Print seconds and extra memory of every method at CIFAR-100's size, beside moderate in plain NumPy."""
    generator = np.random.default_rng(0)
    labels = generator.permutation(np.arange(50_000) % 100)
    with tempfile.TemporaryDirectory() as folder:
        evidence = {"features": generator.standard_normal((50_000, 2048), np.float32),
                    "logits": generator.standard_normal((50_000, 100), np.float32),
                    "dynamics": generator.random((200, 3, 50_000), np.float32).astype(np.float16)}
        for name, array in evidence.items():
            np.save(Path(folder, f"{name}.npy"), array)
        del evidence, array
        mapped = {path.stem: np.load(path, mmap_mode="r") for path in Path(folder).iterdir()}
        from methods import METHODS
        choices = {name: lambda method=method: method.choose(
            labels, 10_000, np.random.default_rng(0), **{need: mapped[need] for need in method.needs})
            for name, method in METHODS.items()}
        choices["moderate in plain NumPy"] = lambda: np.argsort(release_distances(mapped["features"], labels))
        for name, choose in choices.items():
            seconds = []
            for _ in range(rounds):
                begun = time.perf_counter()
                choose()
                seconds.append(time.perf_counter() - begun)
            tracemalloc.start()
            choose()
            peak = tracemalloc.get_traced_memory()[1] / 1e6
            tracemalloc.stop()
            print(f"{name}, 50,000 x 2,048, 100 classes, 200 epochs: {statistics.median(seconds):.2f} s, "
                  f"{peak:.0f} MB beside the memory-mapped files", flush=True)


def scale(images: int, order: str, folder: Path | None) -> None:
    """Print seconds and peak resident memory of the methods on files of ImageNet's size.

    Each method is a process of its own, after plain reading of its files from front to back; both find
    nothing of them in the system's cache. selfsup, which may read the features a hundred times, is left out.

    Args:
        order: "class", as a folder's, or "mixed".
        folder: for a folder of the files, removed at the end; None: the system's for temporary files.
    """
    from methods import METHODS
    with tempfile.TemporaryDirectory(dir=folder) as made:
        write_evidence(Path(made), images, order)
        print(f"{images} images, order: {order}; seconds, of which CPU (all cores), multiple of plain "
              "reading, peak resident memory", flush=True)
        for name, method in METHODS.items():
            if not method.needs or name == "selfsup":
                continue
            paths = [Path(made, f"{need}.npy") for need in method.needs]
            drop_from_cache(paths)
            plain = read_plainly(paths)
            drop_from_cache(paths)
            command = [sys.executable, __file__, "--choose", name, "--folder", made]
            seconds, cpu, peak = map(float, subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-3:])
            print(f"{name}: {seconds:.1f} s, {cpu:.1f} s, {seconds / plain:.1f} x {plain:.1f} s, "
                  f"{peak:.2f} GiB", flush=True)


def listing(images: int, folder: Path | None) -> None:
    """Print seconds to list a folder of images, and from there to the first step of `train.py --prune`.

    By then ResNet-50 is built but not compiled, and the first batch is decoded.

    Args:
        folder: for a folder of the images, removed at the end; None: the system's for temporary files.
    """
    import train
    open_dataset, run_batches, moments = train.open_dataset, train.run_batches, []

    def list_images(*given: object) -> object:
        moments.append(time.perf_counter())
        data = open_dataset(*given)
        moments.append(time.perf_counter())
        return data

    def take_a_batch(_: Callable, batches: Iterator, *rest: object) -> None:
        next(batches)
        moments.append(time.perf_counter())
        raise StopIteration

    with tempfile.TemporaryDirectory(dir=folder) as made:
        write_links(Path(made, "data"), images)
        options = ["--dataset", "folder", "--data", f"{made}/data", "--device", "CPU"]
        subprocess.run([sys.executable, ROOT / "selection.py", *options, "--method", "random",
                        "--rate", "0.2", "--save", made], check=True)
        train.open_dataset, train.run_batches = list_images, take_a_batch
        try:
            train.main([*options, "--prune", f"{made}/folder-random.bin", "--model_dir", made])
        except StopIteration:
            pass
        finally:
            train.open_dataset, train.run_batches = open_dataset, run_batches
    begun, listed, ready = moments
    print(f"{images} images: listed in {listed - begun:.1f} s, {ready - listed:.1f} s from there to the "
          "first step", flush=True)


def write_links(folder: Path, images: int) -> None:
    """Training images in classes of IMAGENET_CLASS, and one of each class for validation: links."""
    from PIL import Image
    folder.mkdir()
    pictures = [folder / f"{i}.jpg" for i in range(-(-images // MOST_LINKS))]
    for picture in pictures:
        Image.new("RGB", (64, 64)).save(picture)
    for first in range(0, images, IMAGENET_CLASS):
        name = f"n{first // IMAGENET_CLASS:08d}"
        for part, last in (("train", min(first + IMAGENET_CLASS, images)), ("val", first + 1)):
            (folder / part / name).mkdir(parents=True)
            for i in range(first, last):
                os.link(pictures[i // MOST_LINKS], folder / part / name / f"{name}_{i}.JPEG")


def write_evidence(folder: Path, images: int, order: str) -> None:
    """Write labels, features (class mean and noise), logits and dynamics, some rows at a time."""
    from utils.arrays import write_blocks
    generator = np.random.default_rng(0)
    classes = -(-images // IMAGENET_CLASS)
    labels = np.arange(images) * classes // images
    if order == "mixed":
        generator.shuffle(labels)
    np.save(folder / "labels.npy", labels)
    means = generator.standard_normal((classes, 2048), np.float32)
    parts = [labels[first:first + WRITTEN_ROWS] for first in range(0, images, WRITTEN_ROWS)]
    write_blocks(folder / "features.npy", (
        means[part] + generator.standard_normal((len(part), 2048), np.float32) for part in parts))
    write_blocks(folder / "logits.npy", (
        generator.standard_normal((len(part), classes), np.float32) for part in parts))
    write_blocks(folder / "dynamics.npy", (
        (generator.random((1, 3, images), np.float32) - [[0], [0.5], [0]]).astype(np.float16)
        for _ in range(90)))


def drop_from_cache(paths: list[Path]) -> None:
    """Let the system forget what it holds of files."""
    for path in paths:
        with open(path, "rb") as file:
            os.fsync(file.fileno())  # what is not on the disk yet stays
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_plainly(paths: list[Path]) -> float:
    """Seconds to read files from front to back."""
    begun = time.perf_counter()
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            buffer = bytearray(2 ** 23)
            while file.readinto(buffer):
                pass
    return time.perf_counter() - begun


def choose(name: str, folder: Path) -> None:
    """Print seconds, CPU seconds and the peak of resident memory, in GiB, of one choice."""
    from methods import METHODS
    begun, cpu = time.perf_counter(), time.process_time()
    labels = np.load(folder / "labels.npy")
    method = METHODS[name]
    method.choose(labels, len(labels) // 5, np.random.default_rng(0), **{
        need: np.load(folder / f"{need}.npy", mmap_mode="r") for need in method.needs})
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    [peak] = [line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
    print(seconds, cpu, int(peak.split()[1]) / 2 ** 20)


TASKS = {"pipeline": pipeline, "tiny-pipeline": tiny_pipeline,
         "folder-pipeline": folder_pipeline, "methods": methods, "dynamics": dynamics,
         "start": start,
         "training": lambda rounds: compare("training", rounds),
         "extraction": lambda rounds: compare("extraction", rounds), "networks": networks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds; their median is printed")
    parser.add_argument("--only", choices=[*TASKS, "scale", "listing"],
                        help="scale and listing are in no other run; scale writes 16.3 GB and removes them")
    parser.add_argument("--images", type=int, default=IMAGENET, help="of --only scale or listing")
    parser.add_argument("--order", choices=["class", "mixed"], default="class", help="of --only scale")
    parser.add_argument("--folder", type=Path,
                        help="for the files of --only scale or listing; None: a temporary one")
    parser.add_argument("--network", help=argparse.SUPPRESS)  # a process of --only networks
    parser.add_argument("--choose", help=argparse.SUPPRESS)  # a process of --only scale
    args = parser.parse_args()
    if args.network:
        network_speed(args.network, args.rounds)
        return
    if args.choose:
        choose(args.choose, args.folder)
        return
    if args.only == "scale":
        scale(args.images, args.order, args.folder)
        return
    if args.only == "listing":
        listing(args.images, args.folder)
        return
    for name, task in TASKS.items():
        if args.only in (None, name):
            task(args.rounds)


if __name__ == "__main__":
    main()
