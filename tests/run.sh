#!/usr/bin/env bash
# Set up .venv, check the code with ruff and mypy, run the tests, two files at a time; arguments, files to run
# alone among them, go to pytest.
set -euo pipefail
unset CDPATH
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source utils/environment.sh
environment requirements.txt tests/requirements.txt
"$PYTHON" -m ruff check --quiet .
"$PYTHON" -m mypy
exec "$PYTHON" -m pytest -q -n 2 --dist loadfile -o testpaths=tests \
    -m "not fuzz and not kills and not ranks and not steps" "$@"
