"""datasets/download.py against a server on this machine."""
import hashlib
import io
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from conftest import TEST, TRAIN, write_cifar10
from datasets import download, open_dataset
from utils.errors import BadInput


class Server(BaseHTTPRequestHandler):
    """Serves `content`; ends the first `breaks` answers half way; knows ranges or not."""
    content, breaks, ranges, asked = b"", 0, True, list[str | None]()

    def do_GET(self) -> None:
        kind, wanted = type(self), self.headers.get("Range")
        kind.asked.append(wanted)
        first = int(wanted[6:-1]) if wanted and kind.ranges else 0
        body = kind.content[first:]
        self.send_response(416 if wanted and not body else 206 if first else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        kind.breaks -= 1
        self.wfile.write(body[:len(body) // 2] if kind.breaks >= 0 else body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Server]]:
    class Own(Server):
        asked = list[str | None]()

    with ThreadingHTTPServer(("127.0.0.1", 0), Own) as running:
        Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        Own.url = f"http://127.0.0.1:{running.server_port}/x"
        yield Own
        running.shutdown()


def serve(server: type[Server], monkeypatch: pytest.MonkeyPatch, name: str, content: bytes) -> None:
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    server.content = content
    monkeypatch.setitem(download.ARCHIVES, name, (*download.ARCHIVES[name][:2], md5, (TRAIN, TEST)))


def tar(**files: bytes) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


@pytest.mark.parametrize("name, folder, ranges", [
    ("CIFAR100", "cifar-100-python", True), ("CIFAR100", "cifar-100-python", False),
    ("CIFAR10", "cifar-10-batches-py", True)])
def test_cifar_is_downloaded_and_unpacked(tmp_path: Path, server: type[Server], name: str, folder: str,
                                          ranges: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A download that was broken off is resumed; a second command changes nothing."""
    source, target = write_cifar10(tmp_path / "source"), tmp_path / "target"
    files = {f"{folder}/{path.name}": path.read_bytes() for path in (source / folder).iterdir()}
    serve(server, monkeypatch, name, tar(**files))
    server.breaks, server.ranges = 1, ranges
    command = [name, "--data", str(target), "--url", server.url]
    with pytest.raises(BadInput, match="cannot be downloaded .*; repeat the command to resume"):
        download.main(command)
    for _ in range(2):
        download.main(command)
    assert server.asked == [None, f"bytes={len(server.content) // 2}-"]
    assert [path.name for path in target.iterdir()] == [folder]
    assert open_dataset(name, target).images_sha256 == open_dataset("CIFAR100", source).images_sha256


def test_an_archive_that_lies_there_is_unpacked(tmp_path: Path, server: type[Server],
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("tiny-imagenet-200/wnids.txt", "n1\n")
    serve(server, monkeypatch, "tiny", content.getvalue())
    (tmp_path / "tiny-imagenet-200.zip").write_bytes(content.getvalue())
    download.main(["tiny", "--data", str(tmp_path), "--url", server.url])
    assert (tmp_path / "tiny-imagenet-200/wnids.txt").read_text() == "n1\n" and not server.asked


def test_a_folder_that_is_not_complete_is_not_there_already(cifar: Path, tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """As after another program was stopped while it unpacked the archive."""
    monkeypatch.setitem(download.ARCHIVES, "CIFAR100", (*download.ARCHIVES["CIFAR100"][:3], (TRAIN, TEST)))
    folder = Path(shutil.copytree(cifar / "cifar-100-python", tmp_path / "cifar-100-python"))
    (folder / "test").unlink()
    with pytest.raises(BadInput, match="cifar-100-python: exists, but is not complete .*test: missing.;"):
        download.main(["CIFAR100", "--data", str(tmp_path)])
    shutil.copy(folder / "train", folder / "test")
    with pytest.raises(BadInput, match=r"complete \(.200, 200. training and test images, not .200, 50."):
        download.main(["CIFAR100", "--data", str(tmp_path)])


def test_an_archive_of_ones_own_is_not_deleted(tmp_path: Path) -> None:
    own = tmp_path / "cifar-100-python.tar.gz"
    own.write_bytes(b"half")
    with pytest.raises(BadInput, match=f"{own.name}: MD5 .*; delete it and repeat the command$"):
        download.main(["CIFAR100", "--data", str(tmp_path)])
    assert own.read_bytes() == b"half"


@pytest.mark.parametrize("files, message", [
    ({"cifar-100-python/../../out": b"x"}, "cannot be unpacked"), ({"other/x": b"x"}, "cannot be unpacked"),
    ({}, "MD5 .*, not .*, so not the official archive; it has been deleted; repeat the command, or specify")])
def test_another_archive_is_refused_and_removed(tmp_path: Path, server: type[Server], files: dict[str, bytes],
                                                message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(server, monkeypatch, "CIFAR100", tar(**files))
    server.content += b"" if files else b"more"
    with pytest.raises(BadInput, match=message):
        download.main(["CIFAR100", "--data", str(tmp_path / "data"), "--url", server.url])
    assert list(tmp_path.rglob("*")) == []
