.PHONY: setup demo test lint bench bench-check chaos
setup: ; @scripts/setup
demo: setup ; @.venv/bin/tidewatch up $(ARGS)
test: lint ; @.venv/bin/python -m pytest $(ARGS)
lint: setup ; @scripts/lint
bench: setup ; @.venv/bin/python -m bench stream $(ARGS)
bench-check: setup ; @.venv/bin/python -m bench check $(ARGS)
chaos: setup ; @.venv/bin/python -m tests.chaos $(ARGS)
