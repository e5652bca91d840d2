#!/usr/bin/env bash
# Builds what fuzzing needs, and runs targets; arguments are those of run.py. Where it cannot be had it says so, and
# exits with 0: nothing was found, because nothing was looked for.
set -euo pipefail
cd "$(dirname "$0")"
code=0
./build.sh || code=$?
if [ "$code" = 3 ]; then
  echo "fuzzing: SKIPPED"
  exit 0
fi
[ "$code" = 0 ] || exit "$code"
exec ../.fuzz/venv/bin/python run.py "$@"
