# `make demo` and `make test` need nothing but Python 3.11 or newer, make and git; both make .venv if it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT := output/demo
STAMP := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.docs-installed

.PHONY: demo test test-slow fuzz soak audit check format docs pictures notebooks clean

demo: $(STAMP)
	$(BIN)/i2l-meshnet assets detector
	$(BIN)/i2l-meshnet predict examples/standing_phone.jpg --out $(OUT) --overwrite
	@echo
	@echo "The results lie in $(OUT): overlays (*.jpg), meshes (*.obj, *.glb), parameters (*.npz, *.json)."

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile -m "not slow and not gpu and not licensed"

test-slow: $(STAMP)
	$(BIN)/pytest -q -m slow

fuzz: $(STAMP)
	FUZZ_CASES=10000 OMP_NUM_THREADS=1 $(BIN)/pytest -q -s -m slow tests/security/test_hostile_files.py

soak: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python scripts/soak_server.py

audit: $(STAMP)
	$(BIN)/python scripts/audit.py

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(DOCS_STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The site lies in output/site; $(BIN)/mkdocs serve shows it while you write."

pictures: $(STAMP)
	$(BIN)/python scripts/draw_pictures.py
	$(BIN)/python scripts/contact_sheet.py
	$(BIN)/python scripts/draw_how_it_works.py

notebooks: $(DOCS_STAMP)
	cd notebooks && OMP_NUM_THREADS=1 ../$(BIN)/jupyter nbconvert --to notebook --execute --inplace *.ipynb

clean:
	rm -rf $(VENV) output

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one, as in: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade -c constraints.txt pip
	$(BIN)/python -m pip install --progress-bar on -c constraints.txt -e ".[dev]"
	@touch $(STAMP)

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[docs]"
	@touch $(DOCS_STAMP)
