.DEFAULT_GOAL := help
.PHONY: help serve check test lint format bench screenshots faults audit clean

help:  ## Show what can be done
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | awk -F'|' '{printf "  make %-10s %s\n", $$1, $$2}'

serve:  ## Install presque and start the server on its embedded store
	python3 dev.py serve

check:  ## All that CI runs: lint, types, imports, every test
	python3 dev.py test

test:  ## The tests alone; ARGS="-k name" chooses
	python3 dev.py run pytest -n auto --dist worksteal $(ARGS)

lint:  ## Lint, format, type and import checks alone
	python3 dev.py run sh -c 'ruff check . && ruff format --check . && mypy && lint-imports --no-cache && bandit -q -r src -c pyproject.toml'

audit:  ## Look up known faults of what presque stands on (needs pypi.org itself)
	python3 dev.py run python tools/audit.py

format:  ## Rewrite the code as the formatter likes it
	python3 dev.py run sh -c 'ruff check --fix . && ruff format .'

bench:  ## Every benchmark, each beside its reference (needs wrk, nginx, webdis)
	python3 dev.py run python bench/all.py

screenshots:  ## Make the pictures of docs/guides/dashboard.md again (needs chromium)
	python3 dev.py run python -m tests.dashboard.screenshots

faults:  ## The long fault runs: kills by the hundred, 500 of them workers', 10,000 forks, 10,000 bad jobs, strangers
	TEST_KILLS=100 TEST_WORKER_KILLS=500 TEST_JOBS=100000 TEST_FORKS=10200 TEST_FUZZ=10000 \
		TEST_STRANGERS=300 TEST_SEED=$${TEST_SEED:-$$(date +%s)} \
		python3 dev.py run pytest tests/faults tests/worker $(ARGS)

clean:  ## Remove the environment and all caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
