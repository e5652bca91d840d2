# Two commands do everything on a fresh machine: `make serve` and `make test`. `make help` lists the rest.
# Needs Python 3.11 or later and a C compiler; everything else is installed into .venv.
PYTHON ?= python3
VENV ?= .venv
DOCS ?= build/docs-venv
PY := $(VENV)/bin/python
LISTEN ?= /ip4/127.0.0.1/tcp/0
ROUNDS ?= 5
BENCH_ARGS ?=
GATES_ARGS ?=
# Processes that share the files of the suite. Most tests wait longer than they compute.
JOBS ?= 4
SANITIZE_TESTS ?=
WHEEL_TESTS ?=
WHEELS_ARGS ?=
ATTACKS_ARGS ?= --node p2pcore --node go --write
MINUTES ?= 1
TARGET ?=

NATIVE := CMakeLists.txt src/p2pcore/_fast/CMakeLists.txt $(wildcard src/p2pcore/_fast/*/*.pyx src/p2pcore/_fast/*/*.pxd)
SANITIZE := -fsanitize=address,undefined -fno-omit-frame-pointer -g1 -O1

.PHONY: help serve test lint docs unit ends interop nats wheel-test sanitize fuzz fuzz-short soak lowest newest gates gates-baseline bench attacks protobuf wheel wheels sdist cibuildwheel hooks clean FORCE

# What make itself has to say goes to stderr: the stdout of `make serve` has addresses and nothing else.
say = @echo "== $(1)" >&2

ifneq ($(shell command -v ccache),)
export CMAKE_C_COMPILER_LAUNCHER ?= ccache
endif

help:            ## this list
	@sed -n 's/^\([a-z-]*\): .*## */\1\t/p' Makefile | expand -t 14

$(VENV)/.tools: pyproject.toml Makefile tools/dependencies.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "p2pcore needs Python 3.11 or later, not " + sys.version)'
	$(call say,making $(VENV): tools for building and testing; what p2pcore needs (about 1 minute))
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install -q --upgrade "pip>=25.1"
	@$(PY) -m pip install -q --group build --group test --group lint
	@$(PY) tools/dependencies.py > $(VENV)/dependencies.txt
	@$(PY) -m pip install -q -r $(VENV)/dependencies.txt
	@touch $@

# Sums of the sources that are compiled. What differs from last time is touched: a file may come with an old date
# (from an archive, a copy), which neither make nor ninja would take for a change.
$(VENV)/.sources: FORCE | $(VENV)/.tools
	@touch -a $@
	@sha256sum $(NATIVE) > $@.new
	@cmp -s $@ $@.new || { grep -vxFf $@ $@.new | cut -c67- | xargs -r touch; cp $@.new $@; }

$(VENV)/.built: $(VENV)/.tools $(VENV)/.sources
	$(call say,building the compiled modules (1 to 3 minutes the first time))
	@$(PY) -m pip install -q --no-build-isolation --no-deps -e .
	@touch $@

serve: $(VENV)/.built  ## a node that listens and prints its multiaddrs, until Ctrl-C
	@exec $(VENV)/bin/p2pcore listen --addr $(LISTEN)

test: lint unit interop  ## environment, build, and the whole suite

lint: $(VENV)/.built  ## ruff, cython-lint, mypy --strict, pyright on the examples, and the stubs against the compiled modules
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	PATH="$(VENV)/bin:$$PATH" cython-lint src/p2pcore/_fast
	$(PY) -m mypy
	$(PY) -m mypy --strict examples
	$(PY) -m pyright --pythonpath $(PY)
	$(PY) -m mypy.stubtest p2pcore._fast --concise --ignore-disjoint-bases --ignore-unused-allowlist --allowlist tests/stubtest-allowlist.txt

# In an environment of its own: the site is made from the source, and needs no build of it.
$(DOCS)/.tools: pyproject.toml
	$(call say,making $(DOCS): tools for the documentation site (half a minute))
	@$(PYTHON) -m venv $(DOCS)
	@$(DOCS)/bin/python -m pip install -q --upgrade "pip>=25.1"
	@$(DOCS)/bin/python -m pip install -q --group docs
	@touch $@

docs: $(DOCS)/.tools  ## the documentation site in build/site; a link or a name that leads nowhere is an error
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/python -m mkdocs build --strict -q
	@echo "build/site/index.html"

unit: $(VENV)/.built  ## the suite without the peers in other languages
	$(PY) -m pytest -n $(JOBS) --dist loadfile -m "not interop"

interop: $(VENV)/.built  ## the real go-libp2p and js-libp2p peers, both ways
	$(PY) -m pytest tests/interop -m interop

nats:            ## the nats-server that the tests of p2pcore.fleet start (they build it themselves too); needs Go
	@$(PYTHON) interop/build.py nats

wheel: $(VENV)/.tools  ## dist/*.whl
	$(PY) -m pip wheel -q --no-deps --no-build-isolation -w dist .

wheels: $(VENV)/.tools  ## dist/*.whl for glibc and musl, x86-64 and aarch64, of WHEELS_ARGS="--python python3.12 ..."
	$(PY) tools/wheels.py $(WHEELS_ARGS)

sdist: $(VENV)/.tools  ## dist/*.tar.gz
	$(PY) -m pip install -q "build>=1.2"
	$(PY) -m build --sdist --no-isolation --skip-dependency-check .

cibuildwheel: $(VENV)/.tools  ## wheelhouse/*.whl as published: needs Docker on Linux (.github/workflows/wheels.yml)
	$(PY) -m pip install -q "cibuildwheel>=3.2"
	$(PY) -m cibuildwheel --output-dir wheelhouse

wheel-test:      ## the wheel in a clean environment of PYTHON=python3.13: what packaging can break, or WHEEL_TESTS=tests
	PYTHON=$(PYTHON) tools/wheel-test.sh $(WHEEL_TESTS)

sanitize:        ## what is compiled, in a checked build with the address and undefined-behaviour sanitizers
	PYTHON=$(PYTHON) CFLAGS="$(SANITIZE)" tools/sanitize-test.sh $(SANITIZE_TESTS)

lowest:          ## the suite on the lowest versions of everything that p2pcore needs, in an environment of its own
	PYTHON=$(PYTHON) tools/versions-test.sh lowest -n $(JOBS) --dist loadfile

newest:          ## the suite on the newest ones, pre-releases and versions over our bounds among them
	PYTHON=$(PYTHON) tools/versions-test.sh newest -n $(JOBS) --dist loadfile

ends: $(VENV)/.built  ## 250 MiB of echo under random cuts, ends and resets on every transport and muxer (about a minute)
	P2PCORE_ENDS_MIB=250 $(PY) -m pytest -q -s tests/conformance/test_ends.py

fuzz:            ## MINUTES=1 of coverage-guided fuzzing each of TARGET="yamux mplex ..." (none: all); see fuzz/README.md
	PYTHON=$(PYTHON) fuzz/fuzz.sh --seconds $$(( 60 * $(MINUTES) )) $(TARGET)

fuzz-short:      ## 10 seconds of each fuzz target, with the same choices each time: red means the change, not chance
	PYTHON=$(PYTHON) fuzz/fuzz.sh --seconds 10 --seed 1

soak: $(VENV)/.built  ## MINUTES=10 of churn of every kind, and whether anything grows meanwhile
	$(PY) bench/soak.py --minutes $(if $(filter command line,$(origin MINUTES)),$(MINUTES),10)

gates: $(VENV)/.built  ## instructions and memory against the committed baseline; needs valgrind (docs/gates.md)
	PYTHONPATH=bench $(PY) -m gates $(GATES_ARGS)

gates-baseline: $(VENV)/.built  ## measures, and takes what it finds as the new baseline
	PYTHONPATH=bench $(PY) -m gates --write

$(VENV)/.bench: $(VENV)/.tools
	$(PY) -m pip install -q --group bench
	@touch $@

bench: $(VENV)/.built $(VENV)/.bench  ## ROUNDS=5 rounds beside go-libp2p and js-libp2p; writes docs/benchmarks.md
	$(PY) bench/sidebyside.py --rounds $(ROUNDS) $(BENCH_ARGS)

attacks: $(VENV)/.built  ## attacks on a node and on go-libp2p, with an honest client beside; writes docs/attacks.md
	PYTHONPATH=bench $(PY) -m attacks $(ATTACKS_ARGS)

protobuf:        ## regenerates src/p2pcore/pb
	PYTHON=$(PYTHON) tools/protobuf.sh

hooks: $(VENV)/.tools  ## has git run ruff and cython-lint before each commit
	$(PY) -m pip install -q pre-commit
	$(PY) -m pre_commit install

clean:           ## forgets every build
	rm -rf build dist .fuzz $(VENV) .mypy_cache .ruff_cache .hypothesis .benchmarks
