PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
PEERS ?= .venv-peers
OLDEST ?= .venv-oldest
WORKERS ?= 2
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
INSTALL := $(PIP) -c constraints.txt
LOCK := $(BIN)/uv pip compile --quiet --no-annotate --generate-hashes --universal --python-version 3.11 \
	-c constraints.txt --custom-compile-command "make lock"

.PHONY: install run check test test-fast test-oldest docs reference examples hostile faces bench overload soak lock sbom clean

# Everything for development. `make run` installs less.
install: $(VENV)/.dev

run: $(VENV)/.run
	EXPRESSNET_LOG_FORMAT=$${EXPRESSNET_LOG_FORMAT:-text} $(BIN)/expressnet serve

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/python -m tests.docs.prose
	$(BIN)/python -m tests.supply.audit

# Each worker has a core, so more threads of torch would only compete.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --no-loadscope-reorder

test: $(VENV)/.dev
	$(PYTEST) \
		--cov --cov-report=term:skip-covered --cov-fail-under=90

# For use between edits: the unit tests except the slow ones. A few of them start small programs.
test-fast: $(VENV)/.dev
	$(PYTEST) --quiet tests/unit $(addprefix --ignore tests/unit/,bench soak supply training)

# Tests the service with the oldest packages that pyproject.toml allows, without Triton's server and training.
test-oldest: $(VENV)/.dev
	$(BIN)/uv venv --quiet --clear --no-project --python $(BIN)/python $(OLDEST)
	$(BIN)/uv pip install --quiet --python $(OLDEST) --resolution lowest-direct -e '.[test,triton]'
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest --quiet -k 'not (contract and triton)' \
		--ignore tests/unit/inference/test_onnx.py tests/contract \
		$(addprefix tests/unit/,access core http inference pipeline predict telemetry tracking vision test_settings.py)

# Builds the documentation as a site, in site/.
docs: $(VENV)/.dev
	$(BIN)/python -m tests.docs.site

# Writes the pages and documents that are generated from code: settings, errors, metrics, commands, fields,
# OpenAPI, AsyncAPI.
reference: $(VENV)/.dev
	$(BIN)/python -m tests.docs.reference

# Runs the commands on the pages and writes their current answers and outputs. For one page:
# `make examples EXAMPLES=docs/reference/api.md`.
examples: $(VENV)/.dev
	$(BIN)/python -m tests.docs.examples $(EXAMPLES)

# Sends thousands of damaged images to a real gateway, and prints the table of docs/notes/hostile-images.md.
hostile: $(VENV)/.dev
	$(BIN)/python -m tests.hostile $(HOSTILE)

# Turned photos, close-ups and selfies: docs/explanation/quality.md. `make faces FACES="--photos FOLDER"` takes photos
# with one main face each.
faces: $(VENV)/.dev
	$(BIN)/python -m tests.faces $(FACES)

# `make bench BENCH="service peers --plot bench.png"` selects the parts: docs/explanation/performance.md. Only `peers`
# needs the peers' environment.
bench: $(VENV)/.dev $(if $(filter peers,$(or $(BENCH),peers)),$(PEERS)/.installed)
	PEERS=$(PEERS) $(BIN)/python -m tests.bench $(BENCH)

# Sends three times as many photos as the service can answer: docs/explanation/reliability.md.
overload: $(VENV)/.dev
	$(BIN)/python -m tests.bench overload $(OVERLOAD)

# `make soak SOAK="--minutes 30 --json soak.json"`: docs/explanation/reliability.md.
soak: $(VENV)/.dev
	$(BIN)/python -m tests.soak $(SOAK)

# Run this after a change of constraints.txt or pyproject.toml. A gateway with Triton needs no PyAV, no ONNX
# Runtime, and no flatbuffers, which only ONNX Runtime uses.
lock: $(VENV)/.dev
	echo 'setuptools>=77' | $(LOCK) - -o locks/build.txt
	$(LOCK) pyproject.toml -o locks/embedded.txt
	$(LOCK) --extra triton --no-emit-package av --no-emit-package flatbuffers --no-emit-package onnxruntime \
		pyproject.toml -o locks/gateway.txt

# Lists the packages of `make run` and the models, as CycloneDX.
sbom: $(VENV)/.dev
	$(BIN)/python -m tests.supply.sbom sbom.json

clean:
	rm -rf $(VENV) $(PEERS) $(OLDEST)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# --no-compile: Python compiles modules on import. Compiling all of them takes longer than the installation.
$(VENV)/.run: $(BIN)/python pyproject.toml locks/build.txt locks/embedded.txt
	$(PIP) --no-compile --require-hashes -r locks/build.txt -r locks/embedded.txt
	$(PIP) --no-deps --no-build-isolation -e .
	touch $@

# Four packages are installed without dependencies. yuface: its wheel has YuNet's weights, for few platforms.
# facenet-pytorch: its wheel has MTCNN's weights; it pins an old torch. nvidia-pytriton: its wheel has the tritonserver
# of the tests, for Linux on x86-64; it pins an old numpy. openapi-python-client: its command line needs an older typer.
$(VENV)/.dev: $(BIN)/python pyproject.toml training/pyproject.toml constraints.txt
	$(INSTALL) -e '.[triton,docs,dev]' -e training
	$(INSTALL) --no-deps yuface facenet-pytorch nvidia-pytriton openapi-python-client
	touch $@ $(VENV)/.run

# The peers of the benchmark pin their own packages. If a peer cannot be installed, the benchmark still runs: its table
# says why the peer is missing, and the next `make bench` tries again.
$(PEERS)/.installed: tests/bench/peers.txt
	rm -rf $(PEERS)
	$(PYTHON) -m venv $(PEERS)
	if { $(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r $< \
		&& $(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
			facenet-pytorch==2.6.0 fer==25.10.3; } 2> $(PEERS)/failed.log; \
	then rm $(PEERS)/failed.log && touch $@; else tail -n 3 $(PEERS)/failed.log; fi
