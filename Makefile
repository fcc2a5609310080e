# `make demo` and `make test` do all of their own set-up, in .venv
PYTHON ?= python3
BIN := .venv/bin
OLDEST_PYTHON ?= $(PYTHON)
export FIFTYONE_DO_NOT_TRACK = 1

.PHONY: demo test soak test-oldest lint clean

demo: .venv/ready
	$(BIN)/python demo/run.py $(if $(APP),--app)

test: .venv/ready
	sh tools/ensure_chromium.sh
	$(BIN)/python -m pytest -c tests/pytest.ini tests

# Every point at which something can go wrong, where the tests take a few; about an hour
soak: .venv/ready
	DIFFPATH_SOAK=full $(BIN)/python -m pytest -c tests/pytest.ini -s tests/soak tests/test_ray.py

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The lowest versions that pyproject.toml allows, on the oldest Python at hand, without the App.
# Warnings are no errors there: old versions warn of what newer ones have changed since
test-oldest: .venv-oldest/ready
	.venv-oldest/bin/python -m pytest -c tests/pytest.ini -o filterwarnings=default -m "not app" tests

clean:
	rm -rf .venv .venv-oldest demo/output build dist *.egg-info

# torch comes first and pinned: where pip is offered a +cpu build of this version it prefers it.
# Where it is not, Linux may get a CUDA build of several GB: point PIP_EXTRA_INDEX_URL or
# PIP_FIND_LINKS at CPU builds.
.venv/ready: pyproject.toml tools/ensure_mongod.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "diffpath needs Python 3.10 or newer; set PYTHON to one, as in: make test PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv .venv \
		|| { echo "Python's venv module is missing; on Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet -e ".[test]"
	$(BIN)/python tools/ensure_mongod.py
	@touch $@

# uv resolves to the lowest versions. It keeps the torch that is there, which is a newer one than the
# lowest: of 2.4 there is no build here without several GB of CUDA
.venv-oldest/ready: pyproject.toml tools/ensure_mongod.py
	$(OLDEST_PYTHON) -m venv --clear .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet uv torch==2.13.0
	.venv-oldest/bin/uv pip install --quiet --python .venv-oldest --resolution lowest-direct -e ".[test]"
	.venv-oldest/bin/python tools/ensure_mongod.py
	@touch $@
