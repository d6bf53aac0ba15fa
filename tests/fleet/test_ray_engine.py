import os
import signal
from pathlib import Path

import pytest
from PIL import Image
from predict_options import predict_options

pytest.importorskip("ray", reason="the extra [ray] is not installed")

import pyarrow as pa

from i2l_meshnet.errors import UserError
from i2l_meshnet.fleet.ray_engine import ray_tables
from i2l_meshnet.fleet.row_maker import RowMaker

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Twelve small copies of the examples, and a file that is no picture."""
    # Ray's default, 15, stops its workers on a busy machine.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    for source in EXAMPLES.glob("*.jpg"):
        with Image.open(source) as image:
            image.thumbnail((320, 320))
            for number in range(4):
                image.save(tmp_path / f"{source.stem}_{number}.jpg")
    (tmp_path / "broken.jpg").write_text("no picture")
    return sorted(map(str, tmp_path.iterdir()))


def workers() -> list[int]:
    """Process ids of the Ray workers of this test."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:
            continue  # It has ended.

    def ours(pid: int) -> bool:
        return pid == os.getpid() or (pid in parents and ours(parents[pid]))

    return [pid for pid, name in names.items() if name.startswith("ray::MapWorker") and ours(pid)]


def test_rows_equal_those_of_one_process_although_a_worker_is_killed(photos: list[str]) -> None:
    options = predict_options("unused.jpg", device="cpu", detect=False, batch_size=2, workers=2)
    expected = pa.concat_tables(RowMaker(options, detect=False).tables(photos))
    tables, killed = [], []
    for table in ray_tables(photos, options, detect=False):
        if not killed:
            killed = workers()[:1]
            os.kill(killed[0], signal.SIGKILL)
        tables.append(table)
    assert killed
    found = pa.concat_tables(tables).sort_by([("picture", "ascending"), ("person", "ascending")])
    expected = expected.sort_by([("picture", "ascending"), ("person", "ascending")])
    assert found["picture"].to_pylist() == expected["picture"].to_pylist()
    # The same batches in the same arithmetic give the same bits.
    assert found.equals(expected)
    assert found.schema.metadata == expected.schema.metadata
    assert sum(error is not None for error in found["error"].to_pylist()) == 1


def test_a_network_that_cannot_be_loaded(photos: list[str]) -> None:
    options = predict_options("unused.jpg", weights=Path("missing.safetensors"), device="cpu", workers=1)
    with pytest.raises(UserError, match=r"missing\.safetensors"):
        list(ray_tables(photos, options, detect=False))
