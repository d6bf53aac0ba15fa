"""The default model answers to twenty pictures as it did when `i2l_lab.tools.regression_pictures` was last run.

Tolerances: the same machine gives the same bits. Other batch sizes and processors add numbers in another order.
Batches of 1 and 7 move joints by up to 0.0001 px, the root by 0.08 mm and vertices relative to it by 0.02 mm. oneDNN
and PyTorch limited to older instructions (`ONEDNN_MAX_CPU_ISA=SSE41 ATEN_CPU_CAPABILITY=default`) move them by
0.0002 px, 0.03 mm and 0.04 mm. The tolerances are at least ten times that.
`expected.npz` names the processor that made it.
"""

import numpy as np

from i2l_lab.tools import regression_pictures

TOLERANCE = {"keypoints": 0.01, "joints": 0.01, "root": 0.001, "lixel_vertices": 0.0005, "param_vertices": 0.0005}
"""Pixels for what is in the picture, metres for the rest."""


def test_the_default_model_answers_as_it_did() -> None:
    with np.load(regression_pictures.FOLDER / regression_pictures.EXPECTED) as file:
        expected = dict(file)
    made_on = str(expected.pop(regression_pictures.MADE_ON))
    assert len(expected["root"]) == regression_pictures.COUNT
    found = regression_pictures.answers()
    assert found.keys() == TOLERANCE.keys()
    moved = regression_pictures.differences(found, expected)
    assert {name: value for name, value in moved.items() if value > TOLERANCE[name]} == {}, f"made on {made_on}"
