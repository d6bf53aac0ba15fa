"""Twenty steps of each training. A stopped and resumed training ends with the same bytes; the losses are compared.

Adam divides by the magnitude of the gradient, so a factor of all gradients does not show in the losses. The gradients
of the first step are therefore compared too.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from golden import Tolerance
from surfaces import drawn_network, lifting_trainer, meshnet, slim_networks, train_lifting
from written import read_csv

STEPS = 20
# Each step of Adam amplifies the rounding of earlier steps. Between an AVX-512, an AVX2 and an SSE processor, losses of
# the first two steps differ by up to 5e-4 of their size, later losses by up to 0.06, losses of lifting by up to 2e-3.
LOSSES = [Tolerance("log/[01]/", 1e-5, 1e-3), Tolerance(".*", 0.1, 0.1)]
LIFTING_LOSSES = [Tolerance("log/[0-4]/", 1e-6, 2e-4), Tolerance(".*", 1e-4, 5e-3)]
GRADIENTS = [Tolerance(".*", 1e-5, 1e-3)]


@pytest.fixture(scope="module", autouse=True)
def slim() -> Iterator[None]:
    with slim_networks(widths=(2, 3, 4, 5), channels=4):
        yield


def log(path: Path) -> list[dict[str, Any]]:
    """The rows of a training's log, without its speed."""
    return [{name: value for name, value in row.items() if name != "images_per_second"} for row in read_csv(path)]


def structure(state: Path) -> dict[str, Any]:
    """The names in a training state, and the type and shape of its network tensors."""
    content = torch.load(state, weights_only=True)
    network = {name: f"{value.dtype} {list(value.shape)}" for name, value in content["network"].items()}
    return {"names": sorted(content), "network": network}


def first_gradients(state: Path) -> list[float]:
    """The norm of each gradient of the first step: ten times Adam's mean after this step."""
    content = torch.load(state, weights_only=True)
    return [10 * float(values["exp_avg"].norm()) for values in content["optimizer"]["state"].values()]


@pytest.mark.slow
def test_tiny_and_its_parameter_stage(compare: Callable[..., None], tmp_path: Path) -> None:
    # 10 images: five steps an epoch in batches of 2. The BatchNorm of the regressor needs batches of 5.
    shared: list[object] = ["--pictures", 10, "--ema", 0.99, "--crop", 32, "--data", tmp_path / "data"]
    shared += ["--backbone", "resnet18", "--head", "lixel", "--augment", "--learning-rate", 1e-3, "--decay-factor", 10]
    shared += ["--device", "cpu", "--workers", 0, "--log-every", 1, "--save-every", 4, "--no-tensorboard"]
    drawn = drawn_network("toy", None, tmp_path / "drawn.safetensors", crop=32)
    for recipe, batch, epochs, start in (("tiny", 2, (0, 4), []), ("tiny-param", 5, (4, 14), ["--start", drawn])):
        run = ("train", recipe, *shared, "--batch", batch, "--first-epoch", epochs[0], "--end-epoch", epochs[1])
        run += ("--decay-epochs", epochs[0] + 2)
        meshnet(*run, *start, "--out", tmp_path / recipe, "--max-steps", 1)
        for name, stops in (("whole", (0,)), ("halves", (7, 0))):
            for stop in stops:
                resumed = start if stop == stops[0] else ["--continue"]
                meshnet(*run, *resumed, "--clip", 5, "--out", tmp_path / name, "--max-steps", stop)
        models = [tmp_path / name / "model_dump" for name in ("whole", "halves")]
        written = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in models]
        stage = "lixel" if recipe == "tiny" else "param"
        state = f"state_{stage}_{STEPS:08d}.pt"
        assert written[0][state] == written[1][state]
        for snapshot in (f"snapshot_{epochs[1] - 1}.safetensors", f"best_{stage}.safetensors"):
            assert written[0][snapshot] == written[1][snapshot]
        found, other = (log(tmp_path / name / "log" / f"{stage}.csv") for name in ("whole", "halves"))
        assert found == other
        assert [row["step"] for row in found if row["loss"] != ""] == list(range(1, STEPS + 1))
        files = sorted(name for name in written[0] if not name.startswith("."))
        kept = {"log": found, "files": files, "state": structure(models[0] / state)}
        # Errors of nearly untrained networks, mm.
        compare(f"train_{recipe}", kept, [Tolerance("MPJPE", 5.0, 0.05), *LOSSES])
        first = tmp_path / recipe / "model_dump" / f"state_{stage}_00000001.pt"
        compare(f"gradients_{recipe}", first_gradients(first), GRADIENTS)


@pytest.mark.parametrize("name", ["lift", pytest.param("lift-hand", marks=pytest.mark.slow)])
def test_lifting(name: str, compare: Callable[..., None], tmp_path: Path) -> None:
    hands, (whole, halves, one) = name == "lift-hand", (tmp_path / f"{run}.pt" for run in ("whole", "halves", "one"))
    rows = train_lifting(lifting_trainer(hands), whole, STEPS)
    train_lifting(lifting_trainer(hands), halves, 7)
    resumed = lifting_trainer(hands)
    resumed.resume(halves)
    train_lifting(resumed, halves, STEPS)
    assert halves.read_bytes() == whole.read_bytes()
    for row in rows:
        row.pop("samples_per_second")
    compare(f"train_{name}", {"log": rows, "state": structure(whole)}, LIFTING_LOSSES)
    train_lifting(lifting_trainer(hands), one, 1)
    compare(f"gradients_{name}", first_gradients(one), GRADIENTS)
