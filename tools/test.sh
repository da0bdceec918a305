#!/usr/bin/env bash
# Installs the package with its test tools into .venv, then lints, checks types and runs all tests.
# Arguments go to pytest: bash tools/test.sh -m "not slow" tests/ops
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/environment.sh

install_package test

# Two test processes with one thread each: more threads than cores make everything slower.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
export MPLBACKEND=Agg

failed=()
step() {
    local name=$1
    shift
    echo "== $name"
    "$VENV/bin/python" -m "$@" </dev/null || failed+=("$name")
}

step "ruff check" ruff check .
step "ruff format" ruff format --check .
step "mypy" mypy seamless_pr
# The tests of a file stay in one process: they share networks and runs; all with Ray clusters too.
step "pytest" pytest -n "${TEST_PROCESSES:-2}" --dist loadfile "$@"

if [ ${#failed[@]} -gt 0 ]; then
    printf 'failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
