"""Every MindSpore function and layer in use is documented for Ascend, GPU and CPU."""
import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = [*ROOT.glob("models/*.py"), ROOT / "train.py", ROOT / "robust/attacks.py",
         ROOT / "utils/distributed.py", ROOT / "utils/device.py"]


def names_in(path: Path) -> Iterator[str]:
    """The full names of what a file takes from MindSpore, such as mindspore.nn.Conv2d."""
    tree = ast.parse(path.read_text())
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name: alias.name for alias in node.names
                        if alias.name.partition(".")[0] == "mindspore"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "mindspore":
            modules |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        name = ast.unparse(node) if isinstance(node, (ast.Attribute, ast.Name)) else ""
        head, _, rest = name.partition(".")
        if re.fullmatch(r"\w+(\.\w+)*", name) and head in modules:
            yield f"{modules[head]}.{rest}".rstrip(".")


def platforms(name: str) -> set[str]:
    """What the docstring of a name says under "Supported Platforms"; empty where it says nothing."""
    module, *rest = name.split(".")
    found: object = importlib.import_module(module)
    for part in rest:
        module = f"{module}.{part}"
        found = getattr(found, part, None) or importlib.import_module(module)
    heading = re.search(r"Supported Platforms:\s+(.*)", getattr(found, "__doc__", None) or "")
    return set(re.findall("Ascend|GPU|CPU", heading[1])) if heading else set()


USED = sorted({name for path in FILES for name in names_in(path)})
# Not documented for CPUs, where docs/devices.md names them; tests/test_ranks.py runs them there.
NOT_ON_CPU = {"mindspore.nn.DistributedGradReducer", "mindspore.ops.AllGather"}


def test_the_layers_of_every_network_are_found() -> None:
    assert {"mindspore.nn.Conv2d", "mindspore.nn.SGD", "mindspore.ops.cross_entropy"} <= set(USED)


@pytest.mark.parametrize("name", [
    name for name in USED if re.match(r"mindspore\.(nn|ops|amp)\.(?!auto)", name)])
def test_it_is_supported_everywhere(name: str) -> None:
    assert platforms(name) == {"Ascend", "GPU", "CPU"} - ({"CPU"} if name in NOT_ON_CPU else set())


def test_the_exceptions_are_documented() -> None:
    text = (ROOT / "docs/devices.md").read_text()
    assert all(name.rpartition(".")[2] in text for name in NOT_ON_CPU)
