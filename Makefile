# Eleven verbs. Each sets up what it needs in .venv; a fresh machine wants only Python 3.11+ and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
RUN    := $(VENV)/.installed-lab
DEV    := $(VENV)/.installed-dev
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help demo test check parity bench sim docs deploy format clean

help: ## list the verbs
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

$(BIN)/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(RUN): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[lab]'
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[dev]'
	@touch $@ $(RUN)

demo: $(RUN) ## six rolling updates under load in a three-node lab; table and HTML report
	$(BIN)/tidegate demo --report out/demo.html $(DEMO_FLAGS)

test: $(DEV) ## all tests (about 10 minutes on 2 cores): those in virtual time side by side, the others alone
	$(BIN)/pytest -n auto --dist loadfile -m "not apart"
	$(BIN)/pytest -m apart

check: $(DEV) ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

parity: $(DEV) ## kubectl stories recorded on a real cluster, replayed against the lab
	$(BIN)/python -m tests.parity.against_lab

bench: $(DEV) ## the figures that README and docs claim
	$(BIN)/python -m bench

sim: $(DEV) ## the demo's story over 50 virtual seeds, chaos over 100, pod verbs over 40, the fence over 2,000 cuts
	$(BIN)/tidegate sim --seeds 50
	$(BIN)/tidegate sim --chaos --seeds 100
	$(BIN)/tidegate sim --chaos --verbs --seeds 40
	$(BIN)/tidegate sim --fence 2000

docs: $(DEV) ## the parts of docs/ that are drawn from code
	$(BIN)/python -m tools.draw_docs

deploy: $(DEV) ## the Helm chart and the kustomize base, of what `tidegate install` applies
	$(BIN)/python -m tools.draw_deploy

format: $(DEV) ## let ruff format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove what make made
	rm -rf $(VENV) out dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
