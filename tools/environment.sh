# Sourced by test.sh and quickstart.sh: creates or reuses .venv and installs the package into it.
# Needs Python >= 3.10 and nothing else. PYTHON=/path/to/python chooses another interpreter.

VENV=.venv

# Prints the first interpreter that is new enough.
find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python3.10 python; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "No Python >= 3.10 found. Install one, or name it: PYTHON=/path/to/python bash $0" >&2
    return 1
}

create_venv() {
    [ -x "$VENV/bin/python" ] && "$VENV/bin/python" -m pip --version >/dev/null 2>&1 && return
    local python
    python=$(find_python)
    echo "Creating $VENV with $("$python" --version)"
    if ! "$python" -m venv "$VENV"; then
        echo "$python cannot create virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2
        return 1
    fi
}

# A changed requirement, another checkout or another interpreter changes the fingerprint.
fingerprint() {
    "$VENV/bin/python" - "$PWD" setup.py pyproject.toml <<'PY'
import hashlib, pathlib, sys
root, *files = sys.argv[1:]
digest = hashlib.sha256(f"{root} {sys.version}".encode())
for name in files:
    digest.update(pathlib.Path(name).read_bytes())
print(digest.hexdigest())
PY
}

# install_package [EXTRA]: does nothing when this state of the requirements is installed already.
install_package() {
    local extra=${1:-} stamp wanted
    create_venv
    stamp="$VENV/.installed${extra:+-$extra}"
    wanted=$(fingerprint)
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    echo "Installing seamless_pr${extra:+[$extra]} into $VENV (some minutes the first time)"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
        --editable ".${extra:+[$extra]}"
    # Written last: an interrupted installation starts again. An extra contains the plain package.
    echo "$wanted" >"$stamp"
    echo "$wanted" >"$VENV/.installed"
}
