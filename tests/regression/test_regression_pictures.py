"""The default model answers to twenty pictures as it did when `scripts/regression_pictures.py` was last run.

Tolerances: the same machine gives the same bits, whatever the batch size of 1 to 20 differs by is below a tenth of
them; other processors order sums otherwise. Measured with oneDNN and PyTorch held to older instruction sets
(`ONEDNN_MAX_CPU_ISA=SSE41 ATEN_CPU_CAPABILITY=default`), see docs/security.md.
"""

import importlib.util
from pathlib import Path

import numpy as np

SCRIPT = Path(__file__).parents[2] / "scripts" / "regression_pictures.py"
TOLERANCE = {"keypoints": 0.05, "joints": 0.05, "root": 0.005, "lixel_vertices": 0.001, "param_vertices": 0.001}
"""Pixels for what is in the picture, metres for the rest. A change of the weights moves them a hundred times as far."""


def test_the_default_model_answers_as_it_did() -> None:
    spec = importlib.util.spec_from_file_location("regression_pictures", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    with np.load(script.FOLDER / script.EXPECTED) as file:
        expected = dict(file)
    assert len(expected["root"]) == script.COUNT
    found = script.answers()
    assert found.keys() == TOLERANCE.keys()
    moved = script.differences(found, expected)
    assert {name: value for name, value in moved.items() if value > TOLERANCE[name]} == {}
