# Sourced by the scripts beside it: finds a Python, makes .venv ready, sets ROOT and PY.
# Needs bash and Python 3.11 or later, nothing else. PYTHON=… chooses the interpreter.

set -euo pipefail
unset PYTHONPATH  # what is run and tested is this checkout
unset PYTHONDONTWRITEBYTECODE  # else each of the hundreds of processes that the tests start would compile it anew

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
PY=$ROOT/.venv/bin/python

_find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11 python; do
        # Run it: a version manager's shim may stand in PATH with no interpreter behind it.
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return 0
        fi
        if [ -n "${PYTHON:-}" ]; then
            echo "PYTHON=$PYTHON is no Python 3.11 or later that runs here." >&2
            return 1
        fi
    done
    echo "No Python 3.11 or later found; python3 is $(python3 --version 2>/dev/null || echo missing)." >&2
    echo "Install one, or name it: PYTHON=/path/to/python3.12 $0" >&2
    return 1
}

_python=$(_find_python) || exit 1
"$_python" "$ROOT/scripts/_environment.py"
