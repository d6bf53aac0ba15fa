# `make demo` and `make test` need only Python 3.11 or newer, make and git. They create .venv if it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT := output/demo
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.dev-installed
DOCS_STAMP := $(VENV)/.docs-installed

PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -q -rs -n 2 --dist worksteal
NUMERIC_TESTS := $(addprefix tests/,geometry bodies models training prediction evaluation regression exporting lab)
# Limits on processor instructions; CONTRIBUTING.md says what they do not cover. A: AVX2 but no AVX-512. B: also no AVX2
# in PyTorch and oneDNN. NUMBA_CPU_FEATURES is empty on purpose: otherwise Numba uses the real processor's features.
SETTING_A := ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
	NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL AVX512_SPR" NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=
SETTING_B := $(SETTING_A) ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41

.PHONY: demo test-assets test test-older test-oldest test-slow wheel-test fuzz soak audit check format docs pictures notebooks clean

demo: $(STAMP)
	$(BIN)/i2l-meshnet assets detector
	$(BIN)/i2l-meshnet predict examples/standing_phone.jpg --out $(OUT) --overwrite
	@echo
	@echo "The results are in $(OUT): overlays (*.jpg), meshes (*.obj, *.glb), parameters (*.npz, *.json)."

test-assets: $(DEV_STAMP)
	$(BIN)/i2l-meshnet assets detector rtmpose mediapipe

test: test-assets
	$(PYTEST)

test-older: test-assets
	$(SETTING_A) $(PYTEST) $(NUMERIC_TESTS)

test-oldest: test-assets
	$(SETTING_B) $(PYTEST) $(NUMERIC_TESTS)

test-slow: $(DEV_STAMP)
	$(BIN)/pytest -q -m slow

wheel-test: $(STAMP)
	$(BIN)/python scripts/wheel_test.py

fuzz: $(DEV_STAMP)
	FUZZ_CASES=10000 OMP_NUM_THREADS=1 $(BIN)/pytest -q -s -m slow tests/security/test_hostile_files.py

soak: $(DEV_STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python scripts/soak_server.py

audit: $(DEV_STAMP)
	$(BIN)/python scripts/audit.py

check: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(DEV_STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(DOCS_STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The site is in output/site. $(BIN)/mkdocs serve shows it while you write."

pictures: $(DEV_STAMP)
	$(BIN)/python scripts/draw_pictures.py

notebooks: $(DOCS_STAMP)
	cd notebooks && OMP_NUM_THREADS=1 ../$(BIN)/jupyter nbconvert --to notebook --execute --inplace *.ipynb

clean:
	rm -rf $(VENV) output

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade -c constraints.txt pip
	$(BIN)/python -m pip install --progress-bar on -c constraints.txt -e .
	@touch $(STAMP)

$(DEV_STAMP): $(STAMP)
	$(BIN)/python -m pip install --progress-bar on -c constraints.txt -e ".[dev]"
	@touch $(DEV_STAMP)

$(DOCS_STAMP): $(DEV_STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[docs]"
	@touch $(DOCS_STAMP)
