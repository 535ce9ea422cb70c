# `make help` lists what there is. Everything sets itself up: the first run of any target installs what it needs.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup run images release test test-fast e2e compat cluster-up cluster-down lint format verify docs generate bench bench-peers bench-models bench-cluster gpu-check gpu-env gpu-wheels dockerfile-check lint-workflows clean

BIN := .venv/bin
SOURCES := platform operators services images tests charts docs
RPC := services/penstock_serving/rpc
PROTOC = $(BIN)/python -m grpc_tools.protoc -I $(RPC)/protocol $(sort $(shell find $(RPC)/protocol -name '*.proto')) --descriptor_set_out=
# UV_LINK_MODE: a cache on another file system is copied from without a warning.
export UV_LINK_MODE ?= copy
# Empty even where the user's is not: what starts here starts Pythons by the dozen, and each would compile torch and Ray anew.
export PYTHONDONTWRITEBYTECODE :=
ifeq ($(shell stat -c %d $(HOME)/.cache 2>/dev/null || echo a),$(shell stat -c %d . 2>/dev/null || echo b))
  UV_LINK_MODE := hardlink
endif

help:  ## Show this help
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | awk -F'\t' '{printf "  make %-13s %s\n", $$1, $$2}'

setup: .venv/.synced  ## Install uv if it is absent, and everything pinned in uv.lock, into .venv

.venv/.synced: uv.lock pyproject.toml
	@echo "penstock: installing the packages pinned in uv.lock (the first time, torch and its libraries: about 6 GB on disk)"
	@scripts/uv sync --frozen --extra all
	@touch $@

run: setup  ## Train a small model, serve it on this machine, send it real requests, show a trace (ONCE=1: then stop)
	@$(BIN)/penstock run $(if $(ONCE),--once)

images: setup  ## Write the images as OCI archives into build/images (IMAGES=runtime: one of them)
	$(BIN)/python -m images build $(or $(IMAGES),all)

release: setup  ## Build wheel, chart and images into build/release (IMAGES='gateway operator': those alone); scripts/release publishes them
	scripts/release build

test: setup  ## Run every test that needs no GPU, those against a real API server and a real Ray among them (WORKERS=0: in one process)
	$(BIN)/pytest -n $(or $(WORKERS),auto) $(ARGS)

test-fast: setup  ## Run the tests that start neither Ray nor an API server
	$(BIN)/pytest -n $(or $(WORKERS),auto) -m 'not ray and not apiserver' $(ARGS)

cluster-up: setup  ## Boot a whole Kubernetes with KubeRay on this machine (as root; it stays until cluster-down; CLUSTER=kind: by kind)
	@PENSTOCK_CLUSTER=$(or $(CLUSTER),own) $(BIN)/python -m tests.cluster up

cluster-down: setup  ## End it; nothing stays but its caches
	@PENSTOCK_CLUSTER=$(or $(CLUSTER),own) $(BIN)/python -m tests.cluster down

e2e: setup  ## Install the chart in a real cluster, serve models, break things (CLUSTER=own, kind or current)
	PENSTOCK_CLUSTER=$(or $(CLUSTER),own) $(BIN)/pytest -n $(or $(WORKERS),auto) -m cluster tests/e2e/cluster $(ARGS)

compat: setup  ## Try the tests that lean on Ray's own ways with its next release, in an environment of its own (RAY=VERSION: with that one)
	@$(BIN)/python -m tests.compat $(if $(RAY),--ray $(RAY))

lint: setup  ## Check style, types and the direction of imports
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: setup  ## Format the code and mend what can be mended
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

verify: setup  ## Check that generated files are up to date with their sources, and every link of the documentation
	scripts/uv lock --check --quiet
	$(BIN)/python -m penstock.api.crds --check manifests/crds
	@mkdir -p build && $(PROTOC)build/descriptors.binpb && cmp build/descriptors.binpb $(RPC)/descriptors.binpb
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

docs: setup  ## Write the documentation as a site into build/site (SERVE=1: show it at http://127.0.0.1:8001)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs $(if $(SERVE),serve --dev-addr 127.0.0.1:8001,build)

generate: setup  ## Write the generated files again
	$(BIN)/python -m penstock.api.crds manifests/crds
	$(PROTOC)$(RPC)/descriptors.binpb

bench: setup  ## Measure the data path, the batcher, the control plane and scaling; JSON and tables under build/bench
	$(BIN)/python -m tests.benchmarks $(ARGS)

bench-peers: setup  ## Install KServe, MLServer, PyTriton and LitServe, each by itself, and measure them beside Penstock
	$(BIN)/python -m tests.benchmarks.peer_table $(ARGS)

bench-models: setup  ## Optimize three models, and measure the guard, resuming, serving and the cache (about 40 minutes)
	$(BIN)/python -m tests.benchmarks.models $(ARGS)

# A machine of its own with a GPU has no Penstock yet: an environment beside .venv, from the lock, or from a folder of wheels without a network.
GPU_ENV := build/gpu-env
GPU_PYTHON = $(if $(filter cpu,$(DEVICE)),$(BIN)/python,$(GPU_ENV)/bin/python)

gpu-check: $(if $(filter cpu,$(DEVICE)),setup,gpu-env)  ## Run every GPU-marked test, and ResNet-50 and MiniLM on the GPU, and write a report (PARTS=tests; WHEELS=FOLDER)
	$(GPU_PYTHON) -m tests.benchmarks.gpu $(PARTS) --device $(or $(DEVICE),cuda)

gpu-env:
	@test -e /proc/driver/nvidia/version || { echo "gpu-check: no GPU found: nothing ran" >&2; exit 3; }
ifdef WHEELS
	python3 -m venv $(GPU_ENV)
	$(GPU_ENV)/bin/python -m pip install --quiet --no-index --find-links $(WHEELS) --require-hashes -r $(WHEELS)/requirements.txt
	printf '%s\n' platform operators services | sed "s|^|$$PWD/|" > $$($(GPU_ENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/penstock.pth
	printf '#!%s/$(GPU_ENV)/bin/python\nimport sys\nfrom penstock_cli.main import main\nsys.exit(main())\n' "$$PWD" > $(GPU_ENV)/bin/penstock
	chmod +x $(GPU_ENV)/bin/penstock
else
	UV_PROJECT_ENVIRONMENT=$(GPU_ENV) scripts/uv sync --frozen --extra all-gpu
endif

gpu-wheels: setup  ## Put all wheels that gpu-check needs into a folder, for a machine without a network (WHEELS=FOLDER; some 6 GB)
	@mkdir -p $(WHEELS)
	scripts/uv export --frozen --quiet --extra all-gpu --no-emit-project --no-header --no-annotate --output-file $(WHEELS)/requirements.txt
	$(BIN)/python -m ensurepip --default-pip >/dev/null
	$(BIN)/python -m pip download --quiet --only-binary :all: --require-hashes --dest $(WHEELS) -r $(WHEELS)/requirements.txt

lint-workflows:  ## Check the workflows by actionlint, built from its Go module
	go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.7

dockerfile-check: setup  ## Build the Dockerfile twice by buildah (as root), and compare every file with the writer's (IMAGES=operator)
	$(BIN)/python -m tests.images.dockerfile $(IMAGES)

bench-cluster: setup  ## Measure installing, applying and faults in a real cluster; JSON and tables under build/bench
	PENSTOCK_CLUSTER=$(or $(CLUSTER),own) $(BIN)/python -m tests.benchmarks.cluster $(ARGS)

clean:  ## Remove what was built here (caches in the user's cache directory stay)
	rm -rf build dist .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
