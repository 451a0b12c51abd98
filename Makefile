# Everything here works on a fresh machine with Python 3.11+, git and make.
.PHONY: demo test lint bench clean

demo: ## the main job, step by step, on a clone of this repository
	scripts/ready scripts/demo

test: ## all tests, on the real engine
	scripts/ready python -m pytest --numprocesses=auto --dist=loadfile --no-loadscope-reorder

lint: ## style, types, direction of imports
	scripts/ready sh -c 'ruff check . && ruff format --check . && mypy && lint-imports'

bench: ## the tables that docs/benchmarks.md quotes
	scripts/ready sh -c 'missed=0; for b in git_hooks commits worktrees store checkpoints big_files containers egress opencode; do python -m benchmarks.$$b || missed=1; done; exit $$missed'

clean: ## what the other targets made in this directory
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache build dist
