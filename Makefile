# make run    install what is needed into .venv, then text -> model -> GGUF -> generated text
# make help   everything else
#
# PYTHON=python3.12 chooses the interpreter; ARGS="..." goes to quickstart.py or pytest.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
STEP    = @$(PY) scripts/step.py $(VENV)/install.log
ARGS   ?=

.PHONY: run test llama.cpp llama-bench lint clean help
.DEFAULT_GOAL := help

run: $(VENV)/.installed  ## text -> model -> GGUF -> generated text, on a bundled corpus (ARGS=FILE: on yours)
	@$(PY) quickstart.py $(ARGS)

test: $(VENV)/.installed-dev llama.cpp  ## run the tests (ARGS="-m slow": the slow ones)
	@$(PY) -m pytest $(ARGS)

llama.cpp: $(VENV)/.installed  ## fill llama.cpp/ with the runtime's sources and build llama-quantize
	@$(PY) scripts/get_llama_cpp.py llama-quantize

llama-bench: $(VENV)/.installed  ## the same, and build llama-bench for the benchmarks
	@$(PY) scripts/get_llama_cpp.py llama-quantize llama-bench

lint: $(VENV)/.installed-dev  ## ruff: rules and format
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

clean:  ## remove .venv, caches and what make put into llama.cpp/; models and texts stay
	@rm -rf $(VENV) .pytest_cache .hypothesis .ruff_cache
	@if test -e llama.cpp/.from-llama-cpp-python; then rm -rf llama.cpp; fi
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## this list
	@sed -n 's/^\([a-z.-]*\):.*  ## /\1|/p' Makefile | awk -F'|' '{ printf "make %-12s %s\n", $$1, $$2 }'

# Installing. A .venv that lies there already (yours, or an older one of ours) is used as it is. The marker
# .incomplete stands while pip works, so that after an interruption the next call starts from an empty .venv
# instead of trusting half-written packages; the stamp is written last.

define missing
$(shell PYTHON="$(PYTHON)" sh scripts/check_tools.sh)
endef

$(VENV)/.installed: requirements.txt
	$(eval problem := $(missing))$(if $(problem),$(error $(problem)))
	@if test -e $(VENV)/.incomplete; then rm -rf $(VENV); fi
	@mkdir -p $(VENV) && touch $(VENV)/.incomplete
	@test -x $(PY) || $(PYTHON) scripts/step.py $(VENV)/install.log "creating $(VENV)" $(PYTHON) -m venv $(VENV)
	@# Settings on a requirement's line need pip 23.1; Python 3.10 and 3.11 may bring an older one.
	$(STEP) "checking pip" $(PY) -m pip install "pip>=23.1"
	@echo "the first installation compiles llama.cpp, which takes some minutes; log: $(VENV)/install.log"
	$(STEP) "installing requirements.txt" $(PY) -m pip install -r requirements.txt
	@rm $(VENV)/.incomplete && touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(STEP) "installing requirements-dev.txt" $(PY) -m pip install -r requirements-dev.txt
	@touch $@
