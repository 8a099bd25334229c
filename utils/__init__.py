"""What every script needs from its surroundings, each file one thing.

Imported before MindSpore, which reads its log level when it is loaded: its warnings speak to its developers.
"""
import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def _stop(*_: object) -> None:
    os.write(2, b"stopped\n")
    os._exit(130)


# Else Ctrl-C while a script imports MindSpore would show its tracebacks. run_script sets another handler.
if ((sys.argv[0] == "-m" or sys.argv[0].endswith(".py")
     and Path(sys.argv[0]).resolve().parent in (ROOT, ROOT / "robust"))
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler):
    signal.signal(signal.SIGINT, _stop)
os.environ.setdefault("GLOG_v", "3")  # errors only
