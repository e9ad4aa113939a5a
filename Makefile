# `make demo`, `make test`, `make check` and `make bench` each set up what they need in .venv, once.
#
#   PYTHON=python3.12   the interpreter to make .venv with (3.11 or newer)
#   ARGS="-k overlay"   more arguments for the command behind demo, test or bench
#   PEER=/path          the containers-storage to compare with in bench

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PLUGINS := plugins/overlay plugins/btrfs plugins/vfs
EXAMPLES := docs/examples/erofs docs/examples/loopimage
PROJECTS := pyproject.toml $(PLUGINS:%=%/pyproject.toml)

export PEER
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test examples check format docs vm-test bench bench-plots clean

help: ## say what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

demo: $(VENV)/installed ## run the main job on every driver that works here
	$(BIN)/hostspec demo $(ARGS)

test: $(VENV)/tools ## run all tests; what this machine cannot do is skipped, with the reason
	$(BIN)/python -m pytest --numprocesses auto $(ARGS)

# As somebody else would: built, installed beside hostspec, and tested from their own directories.
examples: $(VENV)/tools ## run the tests of the example drivers
	$(BIN)/pip install --quiet --upgrade --no-deps --no-build-isolation --target build/examples $(EXAMPLES)
	for each in $(EXAMPLES); do \
	    (cd $$each && PYTHONPATH=$(CURDIR)/build/examples $(CURDIR)/$(BIN)/pytest --numprocesses auto $(ARGS)) || exit; \
	done

# One mypy run for each distribution: the directory of its tests has the same name in all of them.
check: $(VENV)/tools ## style, types, and which module imports which
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	for each in $(PLUGINS) $(EXAMPLES); do $(BIN)/mypy $$each || exit; done
	$(BIN)/lint-imports

format: $(VENV)/tools ## rewrite the code in the project's style
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

docs: $(VENV)/tools ## build the documentation in build/docs; a warning is an error
	$(BIN)/sphinx-build -W --keep-going -q docs build/docs

vm-test: $(VENV)/tools ## run the tests of drivers and quotas under Debian's kernels in QEMU; takes an hour
	(for each in qemu-system-x86_64 modprobe busybox; do command -v $$each || exit; done) >/dev/null || \
	    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends \
	        qemu-system-x86 kmod busybox-static; }
	HOSTSPEC_VM_TESTS=1 $(BIN)/python -m pytest tests/vm $(ARGS); \
	    status=$$?; $(BIN)/python -m tests.vm.results; exit $$status

bench: $(VENV)/tools ## measure, beside containers-storage where it is installed
	$(BIN)/python -m benchmarks $(ARGS)
	$(BIN)/python -m benchmarks.running

bench-plots: $(VENV)/tools ## measure on trees of several sizes, and draw docs/plots/*.svg; takes an hour
	$(BIN)/pip install --quiet --group plots
	$(BIN)/python -m benchmarks.plots $(ARGS)

clean: ## remove all that was made here
	rm -rf $(VENV) build dist .cache .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are files in .venv: remove it, and everything is made again.
$(VENV)/made:
	@! command -v $(PYTHON) >/dev/null || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "hostspec needs Python 3.11 or newer; name one with 'make PYTHON=python3.12 …'" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	        apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy python3-venv; \
	    else \
	        echo "$(PYTHON) is not there, or lacks the modules for virtual environments;" \
	            "on Debian, install the package python3-venv" >&2; exit 1; \
	    fi
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	touch $@

$(VENV)/installed: $(VENV)/made $(PROJECTS)
	$(BIN)/pip install --quiet --editable '.[run]' $(PLUGINS:%=--editable %)
	touch $@

$(VENV)/tools: $(VENV)/installed
	$(BIN)/pip install --quiet --group dev
	touch $@
