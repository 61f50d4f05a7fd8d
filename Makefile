# make quickstart   set up, train AT and AT-AWP on a small data set, attack both, print the leaderboard
# make test         set up, run the tests
# Both can be repeated. Nothing needs a GPU, and nothing a network once .venv is there.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PUBLIC := .venv-public
PUBLIC_STAMP := $(PUBLIC)/.installed
SITE_PACKAGES := 'import sysconfig; print(sysconfig.get_path("purelib"))'
OUT := quickstart

.PHONY: help setup public-tools quickstart smoke test test-slow test-gpu lint format bench bench-attacks agreement

help: ## Print what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | column -t -s $$'\t'

setup: $(STAMP) ## Create .venv and install everything into it (once: about 3 minutes and 6 GB)

$(STAMP): pyproject.toml constraints/constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: awpbench needs Python 3.11 or newer, and $(PYTHON) is $$("$(PYTHON)" --version 2>&1 || true)" >&2; \
	  echo "mend:  name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "Installing into $(VENV) (once: about 3 minutes and 6 GB)"
	@"$(PYTHON)" -m venv $(VENV) || { \
	  echo "error: $(PYTHON) cannot create a virtual environment" >&2; \
	  echo "mend:  install its venv module (Debian, Ubuntu: apt install python3-venv), then repeat" >&2; exit 2; }
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet \
	  --constraint constraints/constraints.txt --editable '.[dev,plot]'
	@touch $@

public-tools: $(PUBLIC_STAMP) ## Create .venv-public: torchattacks and foolbox, beside the packages of .venv

# Their pins clash with ours, so they come without dependencies; a .pth file lends them the packages of .venv and awpbench.
$(PUBLIC_STAMP): $(STAMP) constraints/public-tools.txt
	@$(BIN)/python -m venv --clear $(PUBLIC)
	@$(PUBLIC)/bin/python -m pip install --disable-pip-version-check --quiet \
	  --no-deps --requirement constraints/public-tools.txt
	@{ $(BIN)/python -c $(SITE_PACKAGES); pwd; } > "$$($(PUBLIC)/bin/python -c $(SITE_PACKAGES))/awpbench.pth"
	@$(PUBLIC)/bin/python -c 'import awpbench, foolbox, pyautoattack, torchattacks'
	@touch $@

# Run a command for AT in sight and one for AT-AWP beside it; show what the second said; fail if one of them failed.
define both
@echo '$(1)'; echo '$(2)'
@$(2) >$(OUT)/log 2>&1 & $(1) || first=$$?; wait $$! || second=$$?; cat $(OUT)/log; exit $$(( $${first:-0} | $${second:-0} ))
endef

# Everything goes to $(OUT)/, the rows to a leaderboard of its own: the repository's leaderboard.json stays as it is.
# The nets are too small to share among threads, so each of the two processes gets one.
quickstart: export AWPBENCH_LEADERBOARD := $(OUT)/leaderboard.json
quickstart: export OMP_NUM_THREADS := 1
quickstart: TRAIN := $(BIN)/awpbench train small-cnn --dataset digits --method at --width 16 --epochs 10 --track-every 5
quickstart: EVAL := $(BIN)/awpbench eval --suite full --n-examples 100 --limit spsa=3
quickstart: $(STAMP) ## Train AT and AT-AWP on the digits, attack both, print the leaderboard (about a minute)
	@rm -rf $(OUT)
	@mkdir $(OUT)
	$(call both,$(TRAIN) --out $(OUT)/at,$(TRAIN) --awp --out $(OUT)/at-awp)
	$(call both,$(EVAL) --ckpt $(OUT)/at/best.pt,$(EVAL) --ckpt $(OUT)/at-awp/best.pt)
	@rm $(OUT)/log
	$(BIN)/awpbench leaderboard
	@printf '%s\n' '' 'Where everything lies:' \
	  '  $(OUT)/at, $(OUT)/at-awp    the two runs: config.json, metrics.jsonl, best.pt, last.pt' \
	  '  $(OUT)/*/eval/best-full-v1.0/   result.json, and what every attack did to every image' \
	  '  $(OUT)/leaderboard.json         the rows printed above' \
	  'The README says how to do the same with CIFAR-10; $(BIN)/awpbench --help lists the commands.'

smoke: export OMP_NUM_THREADS := 1
smoke: $(STAMP) ## Train and attack every recipe of the AWP paper, tiny, on the digits (minutes); repeat it to continue
	$(BIN)/awpbench reproduce all --scale smoke --out smoke

test: $(STAMP) ## Run the tests (without those marked slow)
	$(BIN)/pytest

test-slow: $(STAMP) ## Run the tests marked slow
	$(BIN)/pytest -m 'slow and not gpu'

test-gpu: $(STAMP) ## Run the tests on CUDA; they skip, and say why, where there is none
	$(BIN)/pytest -m gpu

lint: $(STAMP) ## Run ruff and mypy --strict
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(STAMP) ## Let ruff format the code and mend what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(STAMP) ## Time our training step against the AWP authors': make bench AUTHORS=path/to/AWP
	@test -n "$(AUTHORS)" || { \
	  echo "error: AUTHORS is not given" >&2; \
	  echo "mend:  make bench AUTHORS=path/to/a/clone/of/github.com/csdongxian/AWP" >&2; exit 2; }
	$(BIN)/python benchmarks/train_step.py --authors "$(AUTHORS)" --method at --width 16
	$(BIN)/python benchmarks/train_step.py --authors "$(AUTHORS)" --method at --width 64 --batch-size 32
	$(BIN)/python benchmarks/train_step.py --authors "$(AUTHORS)" --method trades --width 16
	$(BIN)/python benchmarks/startup.py

CKPT ?= model_zoo/cifar10-prn18-w16-at-s0/best.safetensors
ATTACKS := $(PUBLIC)/bin/python benchmarks/attacks.py

bench-attacks: $(PUBLIC_STAMP) ## Time our attacks against the public tools': make bench-attacks CKPT=path/to/best.pt
	$(ATTACKS) pgd --ckpt $(CKPT) --images 128
	$(ATTACKS) spsa --ckpt $(CKPT) --images 8 --steps 10 --compile
	$(ATTACKS) spsa --ckpt $(CKPT) --images 8 --steps 10 --together 1
	$(ATTACKS) autoattack --ckpt $(CKPT) --images 32

agreement: $(PUBLIC_STAMP) ## Compare our attacks with the public tools', image by image (nets: model_zoo/, AWPBENCH_SHARED)
	$(PUBLIC)/bin/python benchmarks/agreement.py --images 200 --costly-images 32 \
	  --out results/agreement.json $(if $(AWPBENCH_SHARED),--shared "$(AWPBENCH_SHARED)")
