#!/usr/bin/env bash
# Set up .venv and run the tests; arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source ./environment.sh
environment requirements.txt tests/requirements.txt
exec "$PYTHON" -m pytest -q -m "not fuzz" tests "$@"
