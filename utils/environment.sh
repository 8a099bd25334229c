# Sourced by demo.sh and tests/run.sh: makes .venv in the project's folder, installs requirements files in it.
environment() {  # environment REQUIREMENTS...
    local root stamp candidate supported python=""
    supported='import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))'
    root=$(unset CDPATH; cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    for candidate in python3.11 python3.12 python3.10 python3 python; do
        if "$candidate" -c "import venv, ensurepip; $supported" 2>/dev/null; then
            python=$candidate
            break
        fi
    done
    if [ -z "$python" ]; then
        echo "no Python 3.10, 3.11 or 3.12 with venv found: install one (MindSpore has wheels for these)" >&2
        return 2
    fi
    PYTHON=$root/.venv/bin/python
    if ! "$PYTHON" -c "$supported" 2>/dev/null; then
        if "$PYTHON" -c "" 2>/dev/null; then
            echo "$root/.venv is of another Python than 3.10, 3.11 or 3.12: move it away" >&2
            return 2
        fi
        echo "making $root/.venv"  # there is none, or its Python is gone
        "$python" -m venv --clear "$root/.venv" || return 1
    fi
    stamp=$(cat "$@" | cksum)
    for candidate in "$@"; do set -- "$@" -r "$candidate"; shift; done
    if [ "$(cat "$root/.venv/installed-${#@}" 2>/dev/null)" != "$stamp" ]; then
        echo "installing into $root/.venv"
        "$PYTHON" -m pip --version >/dev/null 2>&1 || "$python" -m venv "$root/.venv" || return 1
        # Of PYTHONPATH pip would take packages for installed that are gone in the next shell.
        PYTHONPATH="" "$PYTHON" -m pip install --quiet --disable-pip-version-check "$@" || return 1
        echo "$stamp" > "$root/.venv/installed-${#@}"
    fi
}
