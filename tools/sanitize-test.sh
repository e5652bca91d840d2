#!/usr/bin/env bash
# Builds p2pcore checked (bounds, None, overflow) and with the sanitizers of $CFLAGS, in an environment of
# its own, and runs the suite on it. Reads out of bounds, uses after free and undefined arithmetic fail here.
# Arguments are pytest's; without any it runs the folders whose tests spend their time in compiled modules.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv "$work/venv"
py="$work/venv/bin/python"
"$py" -m pip install -q --upgrade "pip>=25.1"
(cd "$top" && "$py" -m pip install -q --group build --group test)
(cd "$top" && "$py" tools/dependencies.py > "$work/dependencies.txt")
"$py" -m pip install -q -r "$work/dependencies.txt"
# "Sanitize" is a build type of CMake that adds no flags of its own: -O2 -g would take twice as long.
"$py" -m pip install -q --no-build-isolation --no-deps -Ccmake.define.P2PCORE_CHECKED=ON -Ccmake.build-type=Sanitize \
  -Cinstall.strip=false -Cbuild-dir="$work/build" "$top"

cp -r "$top/tests" "$top/README.md" "$top/pyproject.toml" "$work/"
cd "$work"
# Python's own allocator would hide its small blocks from the sanitizer; its leaks at exit are not ours.
export LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)"
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export PYTHONMALLOC=malloc P2PCORE_TEST_TIME_SCALE="${P2PCORE_TEST_TIME_SCALE:-5}"
[ $# -gt 0 ] || set -- tests/{_fast,aio,attacks,conformance,relay,security,streams,transports,upgrade}
"$py" -m pytest -n 2 --dist loadfile -m "not interop and not source and not slow" "$@"
