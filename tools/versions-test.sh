#!/usr/bin/env bash
# Runs the suite against a wheel of this tree in an environment of its own, with the lowest versions that
# pyproject.toml allows of everything p2pcore needs ("lowest"), or with the newest there are, pre-releases
# and versions over the upper bounds among them ("newest").
set -euo pipefail
which=${1:?lowest or newest}
shift
top=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "== making an environment with the $which versions, and the wheel (2 to 4 minutes)" >&2
"${PYTHON:-python3}" -m venv "$work/venv"
py="$work/venv/bin/python"
"$py" -m pip install -q --upgrade "pip>=25.1"
(cd "$top" && "$py" tools/dependencies.py "--$which" > "$work/dependencies.txt")
(cd "$top" && "$py" -m pip install -q --group test -r "$work/dependencies.txt" $([ "$which" = lowest ] || echo --pre))
"$py" -m pip wheel -q --no-deps -w "$work/dist" "$top"
"$py" -m pip install -q --no-deps "$work"/dist/p2pcore-*.whl  # its bounds are what is looked into here
"$py" -m pip freeze

cp -r "$top/tests" "$top/README.md" "$top/pyproject.toml" "$work/"
cd "$work"
"$py" -m pytest tests -m "not interop and not source" "$@"
