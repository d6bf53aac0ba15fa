"""Predictions of the default model on 20 synthetic images: `python -m i2l_lab.tools.regression_pictures` writes them.

Run it when the default model changes on purpose, and commit the new tests/regression/expected.npz. It prints how far
the predictions have moved. The images were drawn by this module at commit 73a70ea: people in garments, hair and skins
that are CC0, in front of blurred noise.
"""

import json
import platform
from pathlib import Path

import numpy as np
import torch

from i2l_meshnet.io import atomic_path
from i2l_meshnet.prediction.images import read_photo
from i2l_meshnet.prediction.intrinsics import Intrinsics
from i2l_meshnet.prediction.predictor import MeshPredictor

FOLDER = Path(__file__).parents[3] / "tests" / "regression"
FACTS, EXPECTED, MADE_ON = "pictures.json", "expected.npz", "made_on"
"""Boxes and cameras; the predictions; the key of the predictions that names their processor and version of PyTorch."""
COUNT = 20


def answers(batch_size: int = COUNT) -> dict[str, np.ndarray]:
    """Predictions of the default model, float32, with people along the first axis.

    keypoints: x, y (pixels) and confidence. joints: x, y (pixels). root: of the parametric mesh in the camera frame,
    metres. lixel_vertices, param_vertices: of the two meshes relative to that root, metres.
    """
    predictor = MeshPredictor.load(device="cpu", detect=False, batch_size=batch_size)
    subjects = [
        predictor.prepare(
            read_photo(FOLDER / name),
            name,
            boxes=[facts["box"]],
            intrinsics=Intrinsics(matrix=(*facts["focal"], *facts["center"])),
        )
        for name, facts in json.loads((FOLDER / FACTS).read_text(encoding="utf-8")).items()
    ]
    people = [person for picture in predictor.predict(subjects) for person in picture]
    arrays: dict[str, list[np.ndarray]] = {}
    for person in people:
        assert person.keypoints is not None
        assert person.parametric_mesh is not None
        root = person.parametric_mesh.joints[person.body.skeleton.root_index]
        for name, value in (
            ("keypoints", person.keypoints),
            ("joints", person.joints_image),
            ("root", root),
            ("lixel_vertices", person.lixel_mesh.vertices - root),
            ("param_vertices", person.parametric_mesh.vertices - root),
        ):
            arrays.setdefault(name, []).append(value.float().numpy())
    return {name: np.stack(values) for name, values in arrays.items()}


def differences(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> dict[str, float]:
    """The maximum absolute difference of each array."""
    return {name: float(np.abs(found[name] - expected[name]).max()) for name in found}


def machine() -> str:
    """The processor and the version of PyTorch."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    name = capabilities.get("cpu_name", platform.processor() or platform.machine())
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}, PyTorch {torch.__version__}"


def main() -> None:
    path, found = FOLDER / EXPECTED, answers()
    if path.exists():
        with np.load(path) as known:
            for name, moved in differences(found, dict(known)).items():
                print(f"{name}: moved by up to {moved:.3g} since {known[MADE_ON]}")
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **found, **{MADE_ON: np.array(machine())})  # pyright: ignore[reportArgumentType]
    print(f"written to {path}")


if __name__ == "__main__":
    main()
