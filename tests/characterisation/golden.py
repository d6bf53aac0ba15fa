"""Compare structured results with golden files: structure and text exactly, numbers within tolerances.

Results are nested dictionaries and lists of plain values and arrays. For an array, the golden file has its shape and
kind, the mean and the mean magnitude of all numbers, and up to `SAMPLES` evenly spaced numbers.
"""

import dataclasses
import json
import platform
import re
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

FOLDER = Path(__file__).parent / "goldens"
SAMPLES = 24


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """Absolute and relative tolerance of the numbers whose path (such as `people/0/box/2`) matches `where`."""

    where: str
    absolute: float
    relative: float = 0.0


EXACT = Tolerance(".*", 0.0, 2e-5)
"""Golden files have six digits."""


def compare(name: str, found: Any, tolerances: Sequence[Tolerance], remake: bool) -> None:
    """Compare a result with its golden file; the first matching tolerance counts. If `remake`, write the file."""
    path, plain = FOLDER / f"{name}.json", described(found)
    if remake:
        FOLDER.mkdir(exist_ok=True)
        content = json.dumps({"made": _maker(), "result": plain}, separators=(",", ":"), sort_keys=True)
        # One line per entry of the first levels, for readable diffs.
        path.write_text(re.sub(r'(?<=[}\],])(?="[^"]+":[{\[])', "\n", content) + "\n")
        return
    kept = json.loads(path.read_text())["result"]
    # The golden result went through JSON.
    differences = _differences(json.loads(json.dumps(plain)), kept, "", [*tolerances, EXACT])
    assert not differences, f"{len(differences)} differences from {path.name}:\n" + "\n".join(differences[:25])


def described(value: Any) -> Any:
    """The value as plain JSON values, with arrays summarised by `_array`."""
    if isinstance(value, dict):
        return {str(key): described(item) for key, item in value.items()}
    if isinstance(value, torch.Tensor):
        return described(value.detach().cpu().numpy())
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, list | tuple):
        if len(value) > SAMPLES and all(isinstance(item, float) for item in value):
            return _array(np.array(value))
        return [described(item) for item in value]
    if isinstance(value, float | np.floating):
        return _short(float(value))
    return value.item() if isinstance(value, np.generic) else value


def _array(values: np.ndarray) -> Any:
    if values.dtype.kind in "US":
        return {"shape": list(values.shape), "texts": [str(value) for value in values.reshape(-1)]}
    flat = values.reshape(-1)
    picked = flat[np.linspace(0, flat.size - 1, min(SAMPLES, flat.size)).astype(int)] if flat.size else flat
    result: dict[str, Any] = {"shape": list(values.shape), "kind": values.dtype.kind}
    # Pixels are compared like floats.
    if values.dtype.kind == "f" or values.dtype == np.uint8:
        known = flat[np.isfinite(flat)].astype(np.float64)
        result["finite"] = len(known)
        if len(known):
            result["mean"], result["size"] = _short(float(known.mean())), _short(float(np.abs(known).mean()))
        return {**result, "values": [_short(float(value)) for value in picked]}
    return {**result, "sum": int(flat.sum()), "values": picked.tolist()}


def _short(value: float) -> float | str:
    return float(f"{value:.6g}") if np.isfinite(value) else repr(value)


def _differences(found: Any, kept: Any, where: str, tolerances: Sequence[Tolerance]) -> list[str]:
    if isinstance(found, dict) and isinstance(kept, dict):
        if found.keys() != kept.keys():
            return [f"{where}/{key}: missing or new" for key in found.keys() ^ kept.keys()]
        pairs = {key: (found[key], kept[key]) for key in kept}
        return [line for key in pairs for line in _differences(*pairs[key], f"{where}/{key}", tolerances)]
    if isinstance(found, list) and isinstance(kept, list):
        if len(found) != len(kept):
            return [f"{where}: {len(found)} entries, kept {len(kept)}"]
        pairs = enumerate(zip(found, kept, strict=True))
        return [line for i, pair in pairs for line in _differences(*pair, f"{where}/{i}", tolerances)]
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in (found, kept)]
    if all(numbers) and isinstance(kept, float | int) and (isinstance(found, float) or isinstance(kept, float)):
        chosen = next(tolerance for tolerance in tolerances if re.search(tolerance.where, where))
        if abs(found - kept) <= chosen.absolute + chosen.relative * abs(kept):
            return []
    elif found == kept and type(found) is type(kept):
        return []
    return [f"{where}: {found!r}, kept {kept!r}"]


def _maker() -> dict[str, str]:
    """The commit, processor and versions that made a result."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=FOLDER)
    processor = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "commit": commit.stdout.strip(),
        "processor": processor[1] if processor else platform.processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        **{name: version(name) for name in ("numpy", "torch", "onnxruntime", "opencv-python-headless")},
    }
