import functools
import json
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from predict_options import predict_options

from i2l_meshnet import cli
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.fleet import predict_table
from i2l_meshnet.fleet.addresses import find_addresses, read_address
from i2l_meshnet.fleet.row_maker import SCHEMA, RowMaker
from i2l_meshnet.fleet.table import TableFolder
from i2l_meshnet.prediction.options import PredictOptions

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small photos, a file that is no picture, and a photo in a subfolder."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "sub").mkdir()
    for name, source in (("a.jpg", "phone"), ("b.png", "garden"), ("sub/c.jpg", "jacket")):
        with Image.open(EXAMPLES / f"standing_{source}.jpg") as image:
            image.thumbnail((320, 320))
            image.save(folder / name)
    (folder / "broken.jpg").write_text("no picture")
    return folder


def options(*inputs: object, **changes: object) -> PredictOptions:
    given: dict = {"device": "cpu", "detect": False, "batch_size": 2, **changes}
    return predict_options(*[str(text) for text in inputs or ["unused.jpg"]], **given)


@pytest.fixture(scope="module")
def maker() -> RowMaker:
    return RowMaker(options(), detect=False)


def test_a_row_has_the_values_of_the_prediction(maker: RowMaker, photos: Path) -> None:
    paths = [str(photos / name) for name in ("a.jpg", "broken.jpg", "b.png")]
    table = maker(pa.table({"picture": paths}))
    assert table.schema.equals(SCHEMA)
    first, broken, second = table.to_pylist()
    assert [first["picture"], broken["picture"], second["picture"]] == paths
    # The broken picture puts the two photos into different batches.
    expected = [maker.predictor(path) for path in (paths[0], paths[2])]
    for row, picture in zip((first, second), expected, strict=True):
        (person,) = picture
        assert (row["person"], row["error"], row["reliable"]) == (0, None, person.reliable)
        assert (row["width"], row["height"]) == (picture.pixels.shape[1], picture.pixels.shape[0])
        for key, value in (
            ("box", person.box),
            ("focal", person.camera.focal),
            ("lixel_joints", person.lixel_mesh.joints),
            ("param_joints", person.parametric_mesh.joints),
            ("translation", person.params.translation),
            ("shape", person.params.shape),
            ("joints_image", person.joints_image),
        ):
            # Rows have six decimals.
            np.testing.assert_allclose(row[key], value.numpy(), rtol=1e-6, atol=1e-6, err_msg=key)
        assert row["reprojection_error"]["median"] == pytest.approx(person.reprojection_error[0], abs=1e-3)
    assert paths[1] in broken["error"]
    assert {key for key, value in broken.items() if value is not None} == {"picture", "error"}
    facts = json.loads(table.schema.metadata[b"i2l-meshnet"])
    assert len(facts["body"]["joint_names"]) == len(first["lixel_joints"])
    assert len(facts["body"]["bone_names"]) == len(first["pose_axis_angle"])


def test_hands_have_columns_of_their_own(photos: Path, tmp_path: Path) -> None:
    photo = EXAMPLES / "standing_garden.jpg"
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({photo.name: [[295, 30, 360, 1360]], "a.jpg": [[0, 0, 40, 40]]}))
    maker = RowMaker(options(boxes=boxes, hands=True), detect=False)
    table = maker(pa.table({"picture": [str(photo), str(photos / "a.jpg")]}))
    row, small = table.to_pylist()
    person = maker.predictor(photo, boxes=[[295.0, 30.0, 360.0, 1360.0]])[0]
    assert set(person.hands) == {"left", "right"}
    facts = json.loads(table.schema.metadata[b"i2l-meshnet"])
    for side, hand in person.hands.items():
        found = row[f"{side}_hand"]
        assert hand.params is not None
        # Batches of other sizes are rounded differently, by 0.1 mm.
        np.testing.assert_allclose(found["lixel_joints"], hand.lixel_mesh.joints, atol=5e-4)
        np.testing.assert_allclose(found["translation"], hand.params.translation, atol=5e-4)
        assert facts["hands"][f"{side}_hand"]["name"] == hand.body.name
        assert len(found["pose_axis_angle"]) == len(facts["hands"][f"{side}_hand"]["bone_names"])
    assert small["left_hand"] is None


def test_all_parts_of_a_table_have_the_same_columns(photos: Path, tmp_path: Path) -> None:
    folder = str(tmp_path / "people")
    assert predict_table.run(options(photos / "a.jpg", parquet=folder)) == 0
    with pytest.raises(InputError) as caught:
        predict_table.run(options(photos / "b.png", parquet=folder, hands=True))
    assert caught.value.argument == "hands"


def test_a_picture_without_people_has_a_row_without_a_person(photos: Path, maker: RowMaker, monkeypatch) -> None:
    nobody = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
    monkeypatch.setattr(maker.predictor, "detector", lambda pixels: nobody)
    (row,) = maker(pa.table({"picture": [str(photos / "a.jpg")]})).to_pylist()
    assert (row["person"], row["error"], row["boxes_source"]) == (None, None, "detector")
    assert row["width"] == 320 or row["height"] == 320


def test_boxes_by_file_name(photos: Path, tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"a.jpg": [[10, 20, 150, 200], [30, 20, 150, 200]]}))
    maker = RowMaker(options(boxes=boxes), detect=False)
    first, second, other = maker(pa.table({"picture": [str(photos / "a.jpg"), str(photos / "b.png")]})).to_pylist()
    assert (first["box"], second["box"]) == ([10, 20, 150, 200], [30, 20, 150, 200])
    assert (first["person"], second["person"]) == (0, 1)
    assert str(photos / "b.png") in other["error"]


@pytest.fixture
def served(photos: Path) -> Iterator[str]:
    """The photos on a web server."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(photos)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_pictures_are_found_and_read_at_addresses(photos: Path, served: str) -> None:
    memory = fsspec.filesystem("memory")
    for path in photos.rglob("*"):
        if path.is_file():
            memory.pipe_file(f"/found/{path.relative_to(photos)}", path.read_bytes())
    root = "memory:///found" if "memory:///found" in memory.unstrip_protocol("/found") else "memory://found"
    flat = [f"{root}/a.jpg", f"{root}/b.png", f"{root}/broken.jpg"]
    assert find_addresses(["memory://found"]) == flat
    assert find_addresses(["memory://found"], recursive=True) == [*flat, f"{root}/sub/c.jpg"]
    assert find_addresses(["memory://found/*.png", "memory://found/*.png"]) == [f"{root}/b.png"]
    assert find_addresses([f"file://{photos}"]) == [str(photos / name) for name in ("a.jpg", "b.png", "broken.jpg")]
    assert find_addresses([f"{served}/"]) == [f"{served}/{name}" for name in ("a.jpg", "b.png", "broken.jpg")]
    here = read_address(str(photos / "a.jpg"), 10**6).pixels
    for address in ("memory://found/a.jpg", f"{served}/a.jpg"):
        np.testing.assert_array_equal(read_address(address, 10**6).pixels, here)
    for address in (f"{served}/none.jpg", f"{served}/broken.jpg", "memory://found/none.jpg"):
        with pytest.raises(FileError) as caught:
            read_address(address, 10**6)
        assert address in str(caught.value)


@pytest.mark.parametrize(
    "address", ["memory://empty", "memory://empty/*.jpg", "nosuch://bucket/folder", "no-such-folder"]
)
def test_addresses_without_pictures(address: str) -> None:
    with pytest.raises(FileError) as caught:
        find_addresses([address])
    assert address in str(caught.value)


def rows(*names: str) -> "pa.Table":
    return pa.Table.from_pylist([{"picture": name, "person": 0} for name in names], SCHEMA)


@pytest.mark.parametrize("remote", [False, True])
def test_a_table_grows_by_whole_parts_and_knows_its_pictures(tmp_path: Path, remote: bool) -> None:
    address = f"memory://table{tmp_path}" if remote else str(tmp_path / "table[1]")
    with TableFolder(address, part_rows=3) as table:
        assert table.pictures() == set()
        for name in "abcd":
            table.append(rows(name))
    again = TableFolder(address, part_rows=3)
    assert again.pictures() == set("abcd")
    with again:
        again.append(rows("e"))
    system, root = fsspec.core.url_to_fs(address)
    parts = sorted(system.find(root))
    assert [pq.read_table(system.open(part))["picture"].to_pylist() for part in parts] == [[*"abc"], ["d"], ["e"]]
    again.clear()
    assert again.pictures() == set()


def test_invalid_parts_and_folders(tmp_path: Path) -> None:
    (tmp_path / "people-000000-x.parquet").write_text("no table")
    with pytest.raises(FileError, match=r"people-000000-x\.parquet"):
        TableFolder(str(tmp_path)).pictures()
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError):
        TableFolder(str(tmp_path / "file"))


def test_the_command_writes_a_table_and_resumes(
    photos: Path, tmp_path: Path, maker: RowMaker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(predict_table, "RowMaker", lambda options, detect: maker)
    out = str(tmp_path / "people")
    assert cli.main(["predict", str(photos / "a.jpg"), "--parquet", out, "--no-detect"]) == 0
    assert capsys.readouterr().out.startswith("pictures: 1, people: 1, ")
    assert cli.main(["predict", str(photos), "--parquet", out, "--no-detect"]) == 1
    printed = capsys.readouterr()
    assert "pictures: 2, people: 1, " in printed.out
    assert "failed: 1" in printed.out
    assert printed.err.count("\n") == 1
    table = pq.read_table(out)
    assert sorted(Path(name).name for name in table["picture"].to_pylist()) == ["a.jpg", "b.png", "broken.jpg"]
    assert cli.main(["predict", str(photos / "b.png"), "--parquet", out, "--no-detect", "--overwrite"]) == 0
    assert pq.read_table(out).num_rows == 1


def test_invalid_options(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict_table.importlib.util, "find_spec", lambda name: None)
    for wrong, argument in (({"hand": "any"}, "hand"), ({"engine": "ray"}, "engine")):
        with pytest.raises(InputError) as caught:
            predict_table.run(options(photos, parquet=str(tmp_path), **wrong))
        assert caught.value.argument == argument
