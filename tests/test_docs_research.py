"""The Python examples of docs/research.md run as they are written, in one session."""

import re
from pathlib import Path
from typing import Any

import pytest

from i2l_meshnet.models.published import BACKBONES

PAGE = Path(__file__).parents[1] / "docs" / "research.md"


def test_the_examples_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("i2l_meshnet.models.published.BACKBONES", BACKBONES.copy())
    session: dict[str, Any] = {}
    for number, example in enumerate(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)):
        exec(compile(example, f"example {number} of {PAGE.name}", "exec"), session)
    assert session["output"].joints.shape[-1] == 3
    assert session["lixels"].shape == (2, 21, 3)
    assert all(term.isfinite() for term in session["losses"].values())
