#!/usr/bin/env bash
# Builds the wheel from this tree, or takes $WHEEL, and installs it in clean environments outside it: in one alone
# (tools/lean_check.py looks at that), in another as p2pcore[cli,fleet] with the tools of tests. There it runs tests
# against what is installed: a file missing from the wheel fails here. Arguments are pytest's; without any it runs the
# part of the suite that packaging can break: programs, processes, the public names, and a connection of every kind.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv "$work/venv"
py="$work/venv/bin/python"
"$py" -m pip install -q --upgrade "pip>=25.1"
wheel=${WHEEL:-}
if [ -z "$wheel" ]; then
  "$py" -m pip wheel -q --no-deps -w "$work/dist" "$top"
  wheel=$(echo "$work"/dist/p2pcore-*.whl)
fi
wheel=$(realpath "$wheel")

"${PYTHON:-python3}" -m venv "$work/lean"
"$work/lean/bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: "$wheel"
cp "$top/tools/lean_check.py" "$work/"
(cd "$work" && "$work/lean/bin/python" -I lean_check.py)

# The oldest multiaddr that p2pcore accepts; the suite of the source tree runs with the newest.
"$py" -m pip install -q "$wheel[cli,fleet]" "multiaddr==0.0.9"
(cd "$top" && "$py" -m pip install -q --group test)

cp -r "$top/tests" "$top/README.md" "$top/pyproject.toml" "$work/"
cd "$work"
where=$("$py" -c 'import p2pcore; print(p2pcore.__file__)')
case $where in
  "$work"/venv/*) echo "testing the wheel installed at ${where#"$work"/}" ;;
  *) echo "the suite would test $where, not the wheel" >&2; exit 1 ;;
esac
[ $# -gt 0 ] || set -- tests/cli tests/workers tests/conformance tests/transports tests/test_*.py
"$py" -m pytest -n 2 --dist loadfile -m "not interop and not source" "$@"
