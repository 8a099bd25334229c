# Sourced by demo.sh and tests/run.sh: makes .venv in the project's folder, installs requirements files in it.
environment() {  # environment REQUIREMENTS...
    local root stamp candidate python=""
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    for candidate in python3.11 python3.12 python3.10 python3 python; do
        if "$candidate" -c 'import sys, venv, ensurepip
sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
            python=$candidate
            break
        fi
    done
    if [ -z "$python" ]; then
        echo "no Python 3.10, 3.11 or 3.12 with venv found: install one (MindSpore has wheels for these)" >&2
        return 2
    fi
    stamp=$(cat "$@" | cksum)
    for candidate in "$@"; do set -- "$@" -r "$candidate"; shift; done
    if [ "$(cat "$root/.venv/installed-${#@}" 2>/dev/null)" != "$stamp" ]; then
        echo "installing into $root/.venv"
        "$root/.venv/bin/python" -m pip --version >/dev/null 2>&1 ||
            "$python" -m venv "$root/.venv" || return 1
        "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" || return 1
        echo "$stamp" > "$root/.venv/installed-${#@}"
    fi
    PYTHON=$root/.venv/bin/python
}
