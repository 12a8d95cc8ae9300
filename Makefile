# Everything runs inside .venv with the versions of constraints.txt; nothing is installed outside this folder but models,
# which go to the user's cache folder (THRIFTRAG_MODELS).
PYTHON ?= python3
PIP_VERSION := 26.0
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SAMPLE := eval/data/sample
ASK := $(BIN)/thriftrag ask --collection sample --budget 256
export PIP_ROOT_USER_ACTION := ignore

.PHONY: help quickstart test check lint types lock bench frontier screenshots clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

quickstart: .venv/.run  ## install, fetch and verify the models, ingest a sample, answer three questions
	$(BIN)/thriftrag models pull
	$(BIN)/thriftrag ingest $(SAMPLE)/corpus.jsonl $(SAMPLE)/files --collection sample
	$(ASK) "About how many rivers flow into the Baltic Sea?"
	$(ASK) "When did Sax's patent expire?"
	$(ASK) "What is a nickname for pond hockey?"
	@printf '%s\n' '' 'What to try next (put .venv/bin on your PATH, or write it before the command):' \
	  '  thriftrag ask "your question" --collection sample --trace     see what was considered, kept and dropped' \
	  '  thriftrag ingest ~/Documents/handbook                         your own files: pdf, office, html, md, mail, code, zip' \
	  '  thriftrag ask "your question" --budget 128                    and ask them, for half the tokens' \
	  '  thriftrag ask "your question" --json                          the whole answer object, receipt and trace' \
	  '  thriftrag config                                              every setting and where it came from' \
	  '  thriftrag collections delete sample                           remove the sample'

test: .venv/.all  ## create what it needs and run the whole suite
	$(BIN)/thriftrag models pull all-minilm-l6-v2 qwen2.5-coder-0.5b-instruct qwen2.5-coder-1.5b-instruct
	$(BIN)/ruff check .
	$(BIN)/mypy
	@$(BIN)/python -m api.web.browser || $(BIN)/playwright install --only-shell chromium || \
	  echo 'The tests of the web page are skipped: they need a Chromium.'
	@echo 'Tests, side by side: faults and integration (shown at the end), unit and property (shown now)'
	@$(BIN)/python -m pytest tests/faults tests/integration > .pytest-slow.log 2>&1 & slow=$$!; \
	  $(BIN)/python -m pytest tests/unit tests/property; quick=$$?; \
	  wait $$slow; slow=$$?; cat .pytest-slow.log; exit $$((quick | slow))

check: .venv/.all lint types  ## the fast checks alone

lint: .venv/.all
	$(BIN)/ruff check .

types: .venv/.all
	$(BIN)/mypy

bench: .venv/.all  ## answer quality on a dataset folder: make bench DATA=path/to/squad2_dev
	@test -n "$(DATA)" || { echo "Name a dataset folder: make bench DATA=path/to/squad2_dev"; exit 2; }
	for reader in qwen2.5-coder-0.5b-instruct qwen2.5-coder-1.5b-instruct; do \
	  $(BIN)/thriftrag eval run $(DATA) --answerable --limit 200 --budgets 256 --systems topk,sentences,greedy,gold \
	    --model $$reader --out runs/$(notdir $(patsubst %/,%,$(DATA)))-$$reader || exit 1; \
	done

# Quality for each token, ours beside baselines and other programs. Hours on two cores, but it goes on where it was stopped.
FRONTIER_SETS := qed_nq squad2_dev hotpotqa covid_qa multihop_rag popqa
FRONTIER_SYSTEMS := closed_book,gold,gold_sentences,topk,topk_dense,topk_bm25,topk_whole,topk_dense_whole,topk_bm25_whole,sentences,mmr,knapsack,adagres,carrot,greedy,lazy,mcts,thrift,llamaindex,haystack,txtai
frontier: .venv/.all  ## the frontier report of docs/frontier: make frontier DATA=folder/of/datasets
	@test -n "$(DATA)" || { echo "Name the folder of the datasets: make frontier DATA=path/to/data"; exit 2; }
	$(BIN)/thriftrag eval run $(FRONTIER_SETS:%=$(DATA)/%) --systems $(FRONTIER_SYSTEMS) --budgets 64,128,256,512,1024 \
	  --limit 1000 --sample 150 --model qwen2.5-coder-0.5b-instruct --out runs/frontier-0.5b
	$(BIN)/thriftrag eval run $(FRONTIER_SETS:%=$(DATA)/%) --systems $(FRONTIER_SYSTEMS) --budgets 64,128,256,512,1024 \
	  --limit 60 --model qwen2.5-coder-1.5b-instruct --out runs/frontier-1.5b

screenshots: .venv/.all  ## the pictures of docs/page, from a real server and a real reader; SUMMARY=runs/x/summary.json adds the frontier
	$(BIN)/python -m api.web.screenshots $(if $(SUMMARY),--summary $(SUMMARY))

lock: .venv/.all  ## refresh constraints.txt to the newest versions that fit pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --extra all --extra peers --extra dev --universal --python-version 3.11 --upgrade \
	  --no-annotate --no-header --output-file constraints.txt

clean:  ## remove the environment; collections and models stay
	rm -rf .venv build *.egg-info .pytest-slow.log .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; $(PYTHON) is older. Name another: make PYTHON=python3.12 quickstart"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make environments. On Debian: apt install python3-venv (or name another: make PYTHON=... quickstart)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) install --quiet "pip==$(PIP_VERSION)"

# A plain install: no torch, no Java, no compiler.
.venv/.run: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) install --constraint constraints.txt --editable '.[cpu]'
	@touch $@

# Everything that a CPU can carry, and the tools that check the code.
.venv/.all: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) install --constraint constraints.txt --editable '.[all,dev,peers]'
	@touch $@ .venv/.run
