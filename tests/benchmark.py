"""Speed on this machine: `python tests/benchmark.py`; beside PyTorch where torchvision is installed.

MindSpore and PyTorch run in processes of their own, alternating in one run, so that each has its own settings
and both see the same machine. Medians of the rounds, warm-up and compilation apart. About ten minutes on two
cores.
"""
import argparse
import importlib.util
import io
import multiprocessing as mp
import os
import statistics
import sys
import tempfile
import threading
import time
import tracemalloc
from collections import deque
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
BATCH = 128
STEPS = 20  # of a round with and without training dynamics
IMAGENET, IMAGENET_CLASS = 1_281_167, 1281  # images; images of a class
WRITTEN_ROWS = 2 ** 12  # at a time
NETWORK_BATCH = 32  # of every network in turn
PHOTO_CLASSES = "even", "odd"
PHOTOS, REPEATS, PHOTO_BATCH = 256, 4, 128  # JPEG files, how often each is in a round, images a batch


def timed(run: Callable[[], object], rounds: int) -> list[float]:
    """Seconds of each of some calls."""
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begun)
    return seconds


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


def begin(prepare: Callable[..., Callable[[], object]], arguments: tuple) -> None:
    """In a new process: prepare its rounds."""
    global run_round
    run_round = prepare(*arguments)


def time_round() -> float:
    return timed(run_round, 1)[0]


def compare(title: str, images: int, rounds: int, contestants: dict[str, tuple]) -> None:
    """Print images per second of contestants that take turns, each in a process; the first is this project.

    Args:
        images: of a round.
        contestants: by name, what prepares a round, and its arguments; those of PyTorch need torchvision.
    """
    pools = {name: ProcessPoolExecutor(1, mp.get_context("spawn"), begin, contestant)
             for name, contestant in contestants.items()
             if not name.startswith("PyTorch") or importlib.util.find_spec("torchvision")}
    seconds: dict[str, list[float]] = {name: [] for name in pools}
    for _ in range(rounds + 1):  # the first is warm-up
        for name, pool in pools.items():
            seconds[name].append(pool.submit(time_round).result())
    for pool in pools.values():
        pool.shutdown()
    speeds = {name: images / statistics.median(times[1:]) for name, times in seconds.items()}
    for name, speed in speeds.items():
        print(f"{title}, {name}: {speed:.1f} img/s (first call {seconds[name][0]:.1f} s)", flush=True)
    ours, *others = speeds.values()
    if others:
        print(f"{title}: here / PyTorch's best = {ours / max(others):.2f}", flush=True)


def resnet50(task: str, rounds: int) -> None:
    """Print images per second of a task of ResNet-50, "training" or "extraction"."""
    compare(f"ResNet-50 {task}, batch {BATCH}", BATCH, rounds, {
        "MindSpore": (mindspore_round, (task,)), "PyTorch NCHW": (torch_round, (task, False)),
        "PyTorch channels-last": (torch_round, (task, True))})


def in_process(function: Callable, *arguments: object) -> Any:
    """A function's result, from a process of its own."""
    with ProcessPoolExecutor(1, mp.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def network_speed(arch: str, rounds: int) -> str:
    """Images per second of a network; run in a process of its own."""
    from utils.device import set_up
    set_up("CPU", 0)
    speeds = []
    for task in ("training", "extraction"):
        run = mindspore_batch(task, arch, NETWORK_BATCH)
        run()
        speeds.append(f"{task} {NETWORK_BATCH / statistics.median(timed(run, rounds)):.1f} img/s")
    return f"{arch}, batch {NETWORK_BATCH}: {', '.join(speeds)}"


def networks(rounds: int) -> None:
    """Print every network's images per second."""
    from models import NETWORKS
    for arch in NETWORKS:
        print(in_process(network_speed, arch, rounds), flush=True)


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


def time_pipeline(name: str, images: np.ndarray | list[bytes], batch_size: int, rounds: int) -> None:
    from datasets import SOURCES, DataSet
    from datasets.images import Split
    from datasets.pipeline import training_batches
    split = Split(images, np.zeros(len(images), np.int32))
    data = DataSet(name, split, split, ["0"], SOURCES[name], "")
    ids = np.arange(len(images))
    seconds = statistics.median(timed(lambda: deque(training_batches(data, ids, batch_size, 0, 0), 0),
                                      rounds))
    print(f"{name} input pipeline: {len(images) / seconds:.0f} img/s", flush=True)


def write_photos(folder: Path) -> None:
    """PHOTOS JPEG files of 500x375 pixels and about 100 kB, as ImageNet's, in two classes."""
    from PIL import Image
    generator = np.random.default_rng(0)
    for part, photos in (("train", PHOTOS), ("val", 2)):
        for name in PHOTO_CLASSES:
            (folder / part / name).mkdir(parents=True)
        for i in range(photos):
            pixels = generator.normal(0, 8, (375, 500, 3))
            for side, share in ((4, 0.5), (16, 0.3), (64, 0.2)):
                coarse = Image.fromarray(generator.integers(0, 256, (side, side, 3), np.uint8))
                pixels += share * np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC))
            photo = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
            photo.save(folder / part / PHOTO_CLASSES[i % 2] / f"{i}.jpg", quality=93)


def folder_round(folder: Path, workers: int) -> Callable[[], object]:
    """One call of the result is one pass over the photos, each REPEATS times, as train.py has them at 224."""
    from datasets import open_dataset
    from datasets.pipeline import training_batches
    data = open_dataset("folder", folder)
    ids = np.tile(data.train.ids, REPEATS)
    return lambda: deque(training_batches(data, ids, PHOTO_BATCH, 0, 0, workers), 0)


def torch_folder_round(folder: Path, workers: int) -> Callable[[], object]:
    """The same by PyTorch's DataLoader and torchvision's transforms of Pillow images."""
    from torch.utils.data import ConcatDataset, DataLoader
    from torchvision import datasets, transforms
    transform = transforms.Compose([
        transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
    photos = datasets.ImageFolder(str(folder / "train"), transform)
    loader = DataLoader(ConcatDataset([photos] * REPEATS), PHOTO_BATCH, shuffle=True, num_workers=workers,
                        persistent_workers=True)
    return lambda: deque(loader, 0)


def folder_pipeline(rounds: int) -> None:
    """Print images per second of JPEG files of 500x375 pixels at 224, here and by PyTorch's DataLoader."""
    workers = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        write_photos(Path(folder))
        kilobytes = statistics.mean(path.stat().st_size for path in Path(folder).glob("train/*/*")) / 1000
        print(f"{PHOTOS} JPEG files of 500x375 pixels and {kilobytes:.0f} kB, at 224, {workers} workers",
              flush=True)
        compare("folder input pipeline", PHOTOS * REPEATS, rounds, {
            "here": (folder_round, (Path(folder), workers)),
            "PyTorch's DataLoader": (torch_folder_round, (Path(folder), workers))})


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
        record = Dynamics(Path(folder, "dynamics.npy"), rounds, 50_000, resume=False)
        steps = {}
        for on in seconds:
            network = create_model("resnet20", 100, small_images=True).set_train(True)
            steps[on] = train.make_train_step(network, train.make_optimizer(network, 5e-4, 0.1), dynamics=on)
            train.run_batches(steps[on], iter(batch), 1, "warm-up", record.pending if on else None)
        for number in range(rounds):
            for on, step in steps.items():
                begun = time.perf_counter()
                train.run_batches(step, iter(batch * STEPS), STEPS, "", record.pending if on else None)
                if on:
                    record.write_epoch(number)
                seconds[on].append(time.perf_counter() - begun)
    ratios = np.divide(seconds[True], seconds[False])
    print(f"resnet20, batch {BATCH}, {STEPS} steps: {statistics.median(seconds[False]):.2f} s without "
          f"training dynamics, {statistics.median(seconds[True]):.2f} s with them; "
          f"ratio {np.median(ratios):.3f} ({ratios.min():.3f} to {ratios.max():.3f})", flush=True)


def release_distances(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The release's formula in straightforward NumPy."""
    centers = np.stack([np.median(features[labels == c], axis=0) for c in np.unique(labels)])
    return np.linalg.norm(features.astype(np.float64) - centers.astype(np.float64)[labels], axis=1)


def choose(name: str, arrays: dict[str, np.ndarray]) -> None:
    """Let a method choose a fifth of the images from labels, features, logits and dynamics."""
    from methods import configure
    configure(name, rate=0.2).select(arrays["labels"], arrays)


def mapped(folder: Path) -> dict[str, np.ndarray]:
    """The .npy files in a folder, memory-mapped, by name."""
    return {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}


def methods(rounds: int) -> None:
    """Print seconds and extra memory of every method at CIFAR-100's size, beside moderate in plain NumPy."""
    from methods import METHODS
    generator = np.random.default_rng(0)
    labels = generator.permutation(np.arange(50_000) % 100)
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, "features.npy"), generator.standard_normal((50_000, 2048), np.float32))
        np.save(Path(folder, "logits.npy"), generator.standard_normal((50_000, 100), np.float32))
        np.save(Path(folder, "dynamics.npy"),
                generator.random((200, 3, 50_000), np.float32).astype(np.float16))
        arrays = {**mapped(Path(folder)), "labels": labels}
        choices = {name: partial(choose, name, arrays) for name in METHODS}
        choices["moderate in plain NumPy"] = lambda: np.argsort(release_distances(arrays["features"], labels))
        for name, run in choices.items():
            seconds = statistics.median(timed(run, rounds))
            tracemalloc.start()
            run()
            peak = tracemalloc.get_traced_memory()[1] / 1e6
            tracemalloc.stop()
            print(f"{name}, 50,000 x 2,048, 100 classes, 200 epochs: {seconds:.2f} s, "
                  f"{peak:.0f} MB beside the memory-mapped files", flush=True)


def scale(images: int, order: str, folder: Path | None) -> None:
    """Print seconds and peak anonymous memory of the methods on files of ImageNet's size.

    Each method is a process of its own, after plain reading of its files from front to back; both find
    nothing of them in the system's cache. selfsup, which may read the features a hundred times, is left out.

    Args:
        order: "class", as a folder's, or "mixed".
        folder: for a folder of the files, removed at the end; None: the system's for temporary files.
    """
    from methods import METHODS, configure
    with tempfile.TemporaryDirectory(dir=folder) as made:
        write_evidence(Path(made), images, order)
        print(f"{images} images, order: {order}; seconds, of which CPU (all cores), multiple of plain "
              "reading, peak anonymous memory beyond the start", flush=True)
        for name in METHODS:
            paths = [Path(made, f"{need}.npy") for need in configure(name, rate=0.2).needs]
            if not paths or name == "selfsup":
                continue
            drop_from_cache(paths)
            [plain] = timed(lambda paths=paths: read_plainly(paths), 1)
            drop_from_cache(paths)
            seconds, cpu, peak = in_process(choose_alone, name, Path(made))
            print(f"{name}: {seconds:.1f} s, {cpu:.1f} s, {seconds / plain:.1f} x {plain:.1f} s, "
                  f"{peak:.0f} MiB", flush=True)


def choose_alone(name: str, folder: Path) -> tuple[float, float, float]:
    """Seconds, CPU seconds and the peak of anonymous memory beyond the start, in MiB, of one choice."""
    from methods import METHODS  # noqa: F401  not timed
    arrays = mapped(folder)
    arrays["labels"] = np.array(arrays["labels"])
    start = peak = anonymous_memory()

    def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, anonymous_memory())
            time.sleep(0.005)

    threading.Thread(target=watch, daemon=True).start()
    cpu = time.process_time()
    [seconds] = timed(lambda: choose(name, arrays), 1)
    return seconds, time.process_time() - cpu, peak - start


def anonymous_memory() -> float:
    """This process's memory in MiB without the pages of files."""
    words = Path("/proc/self/status").read_text().split()
    return int(words[words.index("RssAnon:") + 1]) / 1024


def listing(images: int, folder: Path | None) -> None:
    """Print seconds to list a folder of images, and from there to the first batch of a fifth of them.

    Args:
        folder: for a folder of the images, removed at the end; None: the system's for temporary files.
    """
    from datasets import open_dataset
    from datasets.pipeline import training_batches
    with tempfile.TemporaryDirectory(dir=folder) as made:
        write_links(Path(made), images)
        begun = time.perf_counter()
        data = open_dataset("folder", Path(made))
        listed = time.perf_counter()
        next(training_batches(data, data.train.ids[::5], 256, 0, epoch=0))
        ready = time.perf_counter()
    print(f"{images} images: listed in {listed - begun:.1f} s, {ready - listed:.1f} s from there to the "
          "first batch", flush=True)


def write_links(folder: Path, images: int) -> None:
    """Training images in classes of IMAGENET_CLASS, and one of each class for validation: links."""
    from PIL import Image
    for first in range(0, images, IMAGENET_CLASS):
        name = f"n{first // IMAGENET_CLASS:08d}"
        for part, last in (("train", min(first + IMAGENET_CLASS, images)), ("val", first + 1)):
            (folder / part / name).mkdir(parents=True)
            # A file for each class: ext4 allows 65,000 links to one.
            picture = folder / part / name / f"{name}_{first}.JPEG"
            Image.new("RGB", (64, 64)).save(picture)
            for i in range(first + 1, last):
                os.link(picture, picture.with_name(f"{name}_{i}.JPEG"))


def write_evidence(folder: Path, images: int, order: str) -> None:
    """Write labels, features (class mean and noise), logits and dynamics, some rows at a time."""
    from utils.arrays import create_array
    generator = np.random.default_rng(0)
    classes = -(-images // IMAGENET_CLASS)
    labels = np.arange(images) * classes // images
    if order == "mixed":
        generator.shuffle(labels)
    np.save(folder / "labels.npy", labels)
    means = generator.standard_normal((classes, 2048), np.float32)
    features = create_array(folder / "features.npy", (images, 2048), np.float32)
    logits = create_array(folder / "logits.npy", (images, classes), np.float32)
    for first in range(0, images, WRITTEN_ROWS):
        rows = slice(first, first + WRITTEN_ROWS)
        features[rows] = means[labels[rows]] + generator.standard_normal(features[rows].shape, np.float32)
        logits[rows] = generator.standard_normal(logits[rows].shape, np.float32)
    for epoch in create_array(folder / "dynamics.npy", (90, 3, images), np.float16):
        epoch[:] = generator.random((3, images), np.float32) - [[0], [0.5], [0]]


def drop_from_cache(paths: list[Path]) -> None:
    """Let the system forget what it holds of files."""
    for path in paths:
        with open(path, "rb") as file:
            os.fsync(file.fileno())  # what is not on the disk yet stays
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_plainly(paths: list[Path]) -> None:
    """Read files from front to back."""
    buffer = bytearray(2 ** 23)
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


TASKS = {"pipeline": pipeline, "tiny-pipeline": tiny_pipeline, "folder-pipeline": folder_pipeline,
         "methods": methods, "training": partial(resnet50, "training"),
         "extraction": partial(resnet50, "extraction"), "networks": networks,
         "dynamics": dynamics}  # last: from there on the environment has this project's settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds; their median is printed")
    parser.add_argument("--only", choices=[*TASKS, "scale", "listing"],
                        help="one task; the last two run only where they are named; scale writes 16.3 GB and "
                             "removes them")
    parser.add_argument("--images", type=int, default=IMAGENET, help="for scale and listing")
    parser.add_argument("--order", choices=["class", "mixed"], default="class", help="for scale")
    parser.add_argument("--folder", type=Path, help="where scale and listing make their files; None: the "
                        "system's folder for temporary files")
    args = parser.parse_args()
    if args.only == "scale":
        scale(args.images, args.order, args.folder)
    elif args.only == "listing":
        listing(args.images, args.folder)
    else:
        for name in [args.only] if args.only else TASKS:
            TASKS[name](args.rounds)


if __name__ == "__main__":
    main()
