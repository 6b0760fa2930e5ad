# Everything runs in .venv, which the lock files define. `make lenet` and `make test` are all a newcomer needs.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Containers often have it set. Every process would compile TensorFlow anew, ten seconds long.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: lenet test test-fast test-family test-long test-board board board-stop check golden docs screenshots bench bench-peers lock clean help

help:
	@echo "make lenet      set up .venv and build an int8 LeNet on the embedded data"
	@echo "make test       set up .venv and run all tests that need no board"
	@echo "make test-fast  the unit tests alone"
	@echo "make test-family  a narrow build of every recipe that make test leaves out (half an hour)"
	@echo "make test-long  tests of ten seconds and more, for which CI has no time"
	@echo "make test-board   deploys to an emulated arm64 board and breaks them off (hours; QEMU, see docs/how-to/emulated-board.md)"
	@echo "make board      make and boot the emulated board; make board-stop ends it"
	@echo "make check      ruff, mypy, import contracts, help texts in the docs"
	@echo "make screenshots  the pictures of the docs, with Chromium"
	@echo "make golden     rewrite the golden files and the generated parts of the docs"
	@echo "make docs       build the documentation into site/, offline"
	@echo "make bench      measure the tables of benchmarks/README.md (hours; needs MNIST in EMB_DATA_DIR)"
	@echo "make bench-peers  the table against other quantizers alone (PEERS=\"--build lenet=DIR\" for what is trained already)"
	@echo "make lock       resolve the dependencies of pyproject.toml anew into the lock files"

lenet: .venv/runtime
	$(BIN)/emb build lenet --quantize int8

test: .venv/dev
	$(BIN)/pytest -n 2 --dist loadfile -m "not family and not long and not board"

test-fast: .venv/dev
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow and not board"

test-family: .venv/dev
	$(BIN)/pytest -n 2 -m family

test-long: .venv/dev
	$(BIN)/pytest -n 2 --dist loadfile -m long

# A board has as many cores as the smallest machine that runs this.
BOARDS ?= 1
test-board: .venv/dev
	$(BIN)/pytest -m board -n $(BOARDS) tests/board

board:
	$(PYTHON) tests/board/machine.py start

board-stop:
	$(PYTHON) tests/board/machine.py stop

check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

golden: .venv/dev
	EMB_REWRITE_GOLDEN=1 $(BIN)/pytest -m golden
	$(BIN)/python docs/generate.py

screenshots: .venv/dev
	$(BIN)/python docs/screenshots.py

docs: .venv/dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: .venv/dev bench-peers
	$(BIN)/python benchmarks/mnist_accuracy.py
	$(BIN)/python benchmarks/vanishing_gradients.py
	$(BIN)/python benchmarks/full_size.py
	$(BIN)/python benchmarks/activation_memory.py
	$(BIN)/python benchmarks/hard_model.py --data mnist --epochs 3
	$(BIN)/python benchmarks/channel_pruning.py
	$(BIN)/python benchmarks/qat.py --epochs 1 --width 0.25 --qat-epochs 1
	$(BIN)/python benchmarks/packed_pixels.py
	$(BIN)/python benchmarks/official_tool.py

bench-peers: .venv/peers
	$(BIN)/python benchmarks/peers.py $(PEERS)

# uv writes one lock for all Python versions; it is fetched for this target alone.
lock:
	$(PYTHON) -m venv .venv-lock && .venv-lock/bin/pip install -q uv
	.venv-lock/bin/uv pip compile pyproject.toml --group build --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header --quiet --output-file requirements.lock
	.venv-lock/bin/uv pip compile pyproject.toml --group build --group dev --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header --quiet --constraint requirements.lock \
	  --output-file requirements-dev.lock
	.venv-lock/bin/uv pip compile --group peers --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header --quiet --constraint requirements-dev.lock \
	  --output-file requirements-peers.lock

clean:
	rm -rf .venv .venv-lock site builds

# The stamps are files inside .venv: removing .venv forgets everything.
# Not compiled: Python does that with what it imports, a part of what there is.
.venv/runtime: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install --quiet --no-compile --require-hashes --no-deps -r requirements.lock
	$(PIP) install --quiet --no-compile --no-deps --no-build-isolation --editable .
	touch $@

.venv/dev: .venv/runtime requirements-dev.lock
	$(PIP) install --quiet --no-compile --require-hashes --no-deps -r requirements-dev.lock
	touch $@

.venv/peers: .venv/runtime requirements-peers.lock
	$(PIP) install --quiet --no-compile --require-hashes --no-deps -r requirements-peers.lock
	touch $@
