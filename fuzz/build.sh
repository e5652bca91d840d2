#!/usr/bin/env bash
# Makes .fuzz/venv: the fuzzer, and p2pcore built for it, with coverage, the sanitizers and all checks in every
# compiled module. Builds again only what has changed. Exits with 3 where the fuzzer cannot be had, and says why.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.fuzz/venv
py=$venv/bin/python

if ! command -v clang > /dev/null; then
  echo "no fuzzing here: clang is missing (Debian: apt-get install clang libclang-rt-dev)" >&2
  exit 3
fi
if [ ! -e "$venv/.tools" ] || [ pyproject.toml -nt "$venv/.tools" ]; then
  "${PYTHON:-python3}" -m venv "$venv"
  "$py" -m pip install -q --upgrade "pip>=25.1"
  if ! "$py" -m pip install -q --only-binary :all: --group fuzz; then
    echo "no fuzzing here: no atheris for this Python" >&2
    exit 3
  fi
  "$py" -m pip install -q --group build --group test
  "$py" tools/dependencies.py > .fuzz/dependencies.txt
  "$py" -m pip install -q -r .fuzz/dependencies.txt
  touch "$venv/.tools"
fi

# "Fuzz" is a build type of CMake that adds no flags of its own: -O2 -g would take twice as long. So would the checks of
# null pointers and alignment: AddressSanitizer sees the former, and `make sanitize` runs the suite with all of them.
sanitizers=fuzzer-no-link,address,undefined
export CC=clang CFLAGS="-fsanitize=$sanitizers -fno-sanitize=null,alignment,pointer-overflow -fno-omit-frame-pointer -O1 -g1"
if command -v ccache > /dev/null; then export CMAKE_C_COMPILER_LAUNCHER="${CMAKE_C_COMPILER_LAUNCHER:-ccache}"; fi
# CMake takes CFLAGS from the environment only for a new build: the define below is for one that is there.
"$py" -m pip install -q --no-build-isolation --no-deps --force-reinstall -Ccmake.define.P2PCORE_CHECKED=ON \
  -Ccmake.define.CMAKE_C_FLAGS="$CFLAGS" -Ccmake.build-type=Fuzz -Cinstall.strip=false -Cbuild-dir=.fuzz/build .
