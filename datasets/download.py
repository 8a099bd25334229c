"""Download and unpack CIFAR100, CIFAR10 or tiny: `python -m datasets.download CIFAR100 --data data`"""
import hashlib
import http.client
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path
from typing import Any

from datasets import SOURCES
from utils import options
from utils.errors import BadInput
from utils.files import locked
from utils.progress import ProgressBar

BLOCK, SECONDS = 2 ** 18, 60  # bytes read at once; timeout of a server that sends nothing
# For each data set: the folder in its archive, the archive's address and MD5, the numbers of training and
# test images.
ARCHIVES = {
    "CIFAR100": ("cifar-100-python", "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
                 "eb9058c3a382ffc7106e4002c42a8d85", (50_000, 10_000)),
    "CIFAR10": ("cifar-10-batches-py", "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                "c58f30108f718f92721af3b95e74349a", (50_000, 10_000)),
    "tiny": ("tiny-imagenet-200", "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
             "90528d7ca1a48142e341f4ef8d21d0de", (100_000, 10_000)),
}


def main(argv: list[str] | None = None) -> None:
    parser = options.Parser("Download a data set and unpack it.")
    parser.add_argument("dataset", choices=ARCHIVES, help="data set")
    parser.add_argument("--data", default="data", type=Path, help="folder to create the data set's folder in")
    parser.add_argument("--url", help="address of the same archive elsewhere; None: the official one")
    args = parser.parse_args(argv)
    folder, url, md5, images = ARCHIVES[args.dataset]
    name, target = os.path.basename(url), args.data / folder
    if target.exists() and any(target.iterdir()):
        check_complete(args.dataset, target, images)
        print(f"{target}: exists already")
        return
    with locked(args.data):
        archive, remedy = args.data / name, "delete it and repeat the command"
        downloaded = args.data / f".{name}"
        if not archive.exists():
            archive, remedy = downloaded, "it has been deleted; repeat the command, or specify another --url"
            download(args.url or url, downloaded)
        try:
            unpack(archive, md5, target, remedy)
        except BadInput:
            downloaded.unlink(missing_ok=True)
            raise
        downloaded.unlink(missing_ok=True)
    print(f"{target}: ready")


def check_complete(dataset: str, folder: Path, images: tuple[int, int]) -> None:
    """Raise BadInput if a folder does not hold all images, for example after another program was stopped."""
    try:
        train, test, _ = SOURCES[dataset].read(folder if dataset == "tiny" else folder.parent)
        counts = len(train.labels), len(test.labels)
        problem = f"{counts} training and test images, not {images}" if counts != images else ""
    except BadInput as error:
        problem = str(error).partition(";")[0]
    if problem:
        raise BadInput(f"{folder}: exists, but is not complete ({problem}); move it away and repeat the "
                       "command, or use it as it is")


def download(url: str, path: Path) -> None:
    """Download a file, or the rest of it after an interruption; BadInput if that fails."""
    done = path.stat().st_size if path.exists() else 0
    try:
        request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
        with urllib.request.urlopen(request, timeout=SECONDS) as response:
            done = done if response.status == 206 else 0  # a server may ignore the range
            size = int(response.headers.get("Content-Length", 0)) + done
            with (open(path, "ab" if done else "wb") as file,
                  ProgressBar(path.name[1:], size, "B", done) as bar):
                bar.unit_scale = True
                while block := response.read(BLOCK):
                    file.write(block)
                    bar.update(len(block))
        if path.stat().st_size < size:
            raise http.client.IncompleteRead(b"")
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the partial download is kept; repeat the command to resume") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        if not (isinstance(error, urllib.error.HTTPError) and error.code == 416):  # nothing is left to send
            raise BadInput(f"{url}: cannot be downloaded ({error}); repeat the command to resume, or specify "
                           "another --url") from error


def unpack(path: Path, md5: str, target: Path, remedy: str) -> None:
    """Unpack an archive's folder to `target` in one step; BadInput if it is not the official archive."""
    digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    if digest != md5:
        raise BadInput(f"{path}: MD5 {digest}, not {md5}, so not the official archive; {remedy}")
    filtered = path.suffix == ".gz" and hasattr(tarfile, "data_filter")  # older Pythons do not have it
    safe: dict[str, Any] = {"filter": "data"} if filtered else {}
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as folder:
        try:
            shutil.unpack_archive(path, folder, **safe)
            os.rename(Path(folder, target.name), target)
        except (tarfile.TarError, zipfile.BadZipFile, shutil.ReadError, zlib.error, EOFError,
                FileNotFoundError) as error:
            raise BadInput(f"{path}: cannot be unpacked ({error}); {remedy}") from error


if __name__ == "__main__":
    options.run_script(main)
