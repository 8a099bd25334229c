"""Shared utilities, imported before MindSpore, which reads its log level when it is loaded."""
import os
import signal
import sys
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parent.parent
REQUIRED = "mindspore", "numpy", "PIL", "tqdm"  # of requirements.txt


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Replace the traceback by one line where a required package is not installed."""
    if not isinstance(error, ModuleNotFoundError) or str(error.name).partition(".")[0] not in REQUIRED:
        return sys.__excepthook__(kind, error, trace)
    os.write(2, f"{os.path.basename(sys.argv[0])}: error: {error}; pip install -r "
             f"{os.path.relpath(ROOT / 'requirements.txt')}\n".encode())
    os._exit(2)


def _stop(*_: object) -> None:
    os.write(2, b"stopped\n")
    os._exit(130)


if sys.argv[0] == "-m" or sys.argv[0].endswith(".py") and ROOT in Path(sys.argv[0]).resolve().parents[:2]:
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # closed: the next file to be opened would get its number
            setattr(sys, name, open(os.open(os.devnull, os.O_RDWR), "w" if number else "r"))
    sys.excepthook = _end
    # Otherwise Ctrl-C during the import of MindSpore shows its tracebacks. run_script sets another handler.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
os.environ.setdefault("GLOG_v", "3")  # only errors: its warnings are for its developers
