# make run    install what is needed into .venv, then text -> model -> GGUF -> generated text
# make help   everything else
#
# PYTHON=python3.12 chooses the interpreter; ARGS="..." goes to quickstart.py or pytest.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
LLAMA   = $(PY) scripts/install_llama_cpp.py $(VENV)/install.log
STEP    = @$(PY) scripts/step.py $(VENV)/install.log
ARGS   ?=

.PHONY: run test llama.cpp llama-bench lint clean help
.DEFAULT_GOAL := help

run: $(VENV)/.llama  ## text -> model -> GGUF -> generated text, on a bundled corpus (ARGS=FILE: on yours)
	@$(PY) quickstart.py $(ARGS)

test: $(VENV)/.installed-dev $(VENV)/.llama  ## run the tests (ARGS="-m slow": the slow ones)
	@if test -e $(VENV)/.llama; then $(PY) scripts/get_llama_cpp.py llama-quantize; fi
	@$(PY) -m pytest $(ARGS)

llama.cpp: $(VENV)/.llama  ## fill llama.cpp/ with the runtime's sources and build llama-quantize
	@$(PY) scripts/get_llama_cpp.py llama-quantize

llama-bench: $(VENV)/.llama  ## the same, and build llama-bench for the benchmarks
	@$(PY) scripts/get_llama_cpp.py llama-quantize llama-bench

lint: $(VENV)/.installed-dev  ## ruff: rules and format
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

clean:  ## remove .venv, caches and what make put into llama.cpp/; models and texts stay
	@rm -rf $(VENV) build *.egg-info .pytest_cache .hypothesis .ruff_cache
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

$(VENV)/.installed: requirements-core.txt
	$(eval problem := $(missing))$(if $(problem),$(error $(problem)))
	@if test -e $(VENV)/.incomplete; then rm -rf $(VENV); fi
	@mkdir -p $(VENV) && touch $(VENV)/.incomplete
	@test -x $(PY) || $(PYTHON) scripts/step.py $(VENV)/install.log "creating $(VENV)" $(PYTHON) -m venv $(VENV)
	@# Settings on a requirement's line need pip 23.1; Python 3.10 and 3.11 may bring an older one.
	$(STEP) "checking pip" $(PY) -m pip install "pip>=23.1"
	$(STEP) "installing requirements-core.txt (log: $(VENV)/install.log)" $(PY) -m pip install -r requirements-core.txt
	@rm $(VENV)/.incomplete && touch $@

# Without a compiler it is left out (status 3), and the next call looks for one again.
$(VENV)/.llama: $(VENV)/.installed requirements.txt requirements-llama.txt
	@$(LLAMA); status=$$?; if test $$status = 0; then touch $@; elif test $$status != 3; then exit $$status; fi

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(STEP) "installing requirements-dev.txt" $(PY) -m pip install -r requirements-dev.txt
	@touch $@
