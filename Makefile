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

.PHONY: install run check test test-fast test-oldest docs reference examples hostile bench overload soak lock sbom clean

# Everything that a developer needs. `make run` installs less.
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

# Each of the workers has a core; threads of torch would only be in each other's way.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --no-loadscope-reorder

test: $(VENV)/.dev
	$(PYTEST) \
		--cov --cov-report=term:skip-covered --cov-fail-under=90

# Between two edits: the unit tests except the slow ones. A few of them start small programs.
test-fast: $(VENV)/.dev
	$(PYTEST) --quiet tests/unit $(addprefix --ignore tests/unit/,bench soak supply training)

# The service with the oldest packages that pyproject.toml allows; those of Triton's server and of training are not there.
test-oldest: $(VENV)/.dev
	$(BIN)/uv venv --quiet --clear --no-project --python $(BIN)/python $(OLDEST)
	$(BIN)/uv pip install --quiet --python $(OLDEST) --resolution lowest-direct -e '.[test,triton]'
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest --quiet -k 'not (contract and triton)' \
		--ignore tests/unit/inference/test_onnx.py tests/contract \
		$(addprefix tests/unit/,access core http inference pipeline predict telemetry tracking vision test_settings.py)

# The documentation as a site, in site/.
docs: $(VENV)/.dev
	$(BIN)/python -m tests.docs.site

# The pages and documents that are made from code: settings, errors, metrics, commands, fields, OpenAPI, AsyncAPI.
reference: $(VENV)/.dev
	$(BIN)/python -m tests.docs.reference

# The answers and outputs on the pages, as the commands give them today. `make examples EXAMPLES=docs/reference/api.md`
# for one page.
examples: $(VENV)/.dev
	$(BIN)/python -m tests.docs.examples $(EXAMPLES)

# Thousands of damaged images to a real gateway; makes the table of docs/notes/hostile-images.md.
hostile: $(VENV)/.dev
	$(BIN)/python -m tests.hostile $(HOSTILE)

# `make bench BENCH="service peers --plot bench.png"` for less or more of it: docs/explanation/performance.md. Only `peers` needs
# the peers' environment.
bench: $(VENV)/.dev $(if $(filter peers,$(or $(BENCH),peers)),$(PEERS)/.installed)
	PEERS=$(PEERS) $(BIN)/python -m tests.bench $(BENCH)

# Three times as many photos as can be answered: docs/explanation/reliability.md.
overload: $(VENV)/.dev
	$(BIN)/python -m tests.bench overload $(OVERLOAD)

# `make soak SOAK="--minutes 30 --json soak.json"`: docs/explanation/reliability.md.
soak: $(VENV)/.dev
	$(BIN)/python -m tests.soak $(SOAK)

# After constraints.txt or pyproject.toml changed. The gateway of Triton leaves out ONNX Runtime, which alone needs
# flatbuffers, and PyAV.
lock: $(VENV)/.dev
	echo 'setuptools>=77' | $(LOCK) - -o locks/build.txt
	$(LOCK) pyproject.toml -o locks/embedded.txt
	$(LOCK) --extra triton --no-emit-package av --no-emit-package flatbuffers --no-emit-package onnxruntime \
		pyproject.toml -o locks/gateway.txt

# What `make run` installs, and the models, as CycloneDX.
sbom: $(VENV)/.dev
	$(BIN)/python -m tests.supply.sbom sbom.json

clean:
	rm -rf $(VENV) $(PEERS) $(OLDEST)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Python compiles what it imports. All the rest would take longer to compile than to install.
$(VENV)/.run: $(BIN)/python pyproject.toml locks/build.txt locks/embedded.txt
	$(PIP) --no-compile --require-hashes -r locks/build.txt -r locks/embedded.txt
	$(PIP) --no-deps --no-build-isolation -e .
	touch $@

# These come alone. yuface's wheel carries YuNet's weights, and is made for few platforms. facenet-pytorch pins an
# old torch; its wheel carries MTCNN's weights. nvidia-pytriton pins an old numpy; its wheel carries the
# tritonserver of the tests, for Linux on x86-64. openapi-python-client wants an older typer for its command line.
$(VENV)/.dev: $(BIN)/python pyproject.toml training/pyproject.toml constraints.txt
	$(INSTALL) -e '.[triton,docs,dev]' -e training
	$(INSTALL) --no-deps yuface facenet-pytorch nvidia-pytriton openapi-python-client
	touch $@ $(VENV)/.run

# What this service is compared with pins packages of its own. A peer that cannot be installed is no reason not to
# measure: the table says why it is missing, and the next `make bench` tries again.
$(PEERS)/.installed: tests/bench/peers.txt
	rm -rf $(PEERS)
	$(PYTHON) -m venv $(PEERS)
	if { $(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r $< \
		&& $(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
			facenet-pytorch==2.6.0 fer==25.10.3; } 2> $(PEERS)/failed.log; \
	then rm $(PEERS)/failed.log && touch $@; else tail -n 3 $(PEERS)/failed.log; fi
