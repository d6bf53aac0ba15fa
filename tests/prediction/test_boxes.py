import json
from pathlib import Path

import pytest

from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.prediction.boxes import BoxFile, PersonBox, require_inside


def written(folder: Path, content: object) -> Path:
    path = folder / "boxes.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_plain_list_is_for_one_image(tmp_path: Path) -> None:
    boxes = BoxFile(written(tmp_path, [[1, 2, 30, 40], [5.5, 6, 7, 8]]))
    assert boxes.for_one_picture
    assert boxes.of(Path("any.jpg")) == [PersonBox((1.0, 2.0, 30.0, 40.0)), PersonBox((5.5, 6.0, 7.0, 8.0))]


def test_boxes_by_name_prefer_the_longest_name(tmp_path: Path) -> None:
    content = {"a.jpg": [[0, 0, 1, 1]], "sub/a.jpg": [[0, 0, 2, 2]], "/data/in/sub/a.jpg": [[0, 0, 3, 3]], "b": []}
    boxes = BoxFile(written(tmp_path, content))
    assert not boxes.for_one_picture
    for path, relative, width in (("/x/a.jpg", "a.jpg", 1.0), ("/x/sub/a.jpg", "sub/a.jpg", 2.0)):
        assert boxes.of(Path(path), Path(relative)) == [PersonBox((0.0, 0.0, width, width))]
    assert boxes.of(Path("/data/in/sub/a.jpg"), Path("sub/a.jpg")) == [PersonBox((0.0, 0.0, 3.0, 3.0))]
    assert boxes.of(Path("b.png")) == []
    assert boxes.of(Path("c.png")) is None


def test_rootnet_results_have_depth_in_metres(tmp_path: Path) -> None:
    content = [
        {"image_id": 197388, "bbox": [1, 2, 3, 4], "root_cam": [100, 200, 4321.0], "score": 0.5},
        {"image_id": 197388, "bbox": [5, 6, 7, 8], "root_cam": [0.1, 0.2, 3.5]},
        {"file_name": "other.jpg", "bbox": [5, 6, 7, 8]},
    ]
    boxes = BoxFile(written(tmp_path, content))
    first, second = boxes.of(Path("000000197388.jpg")) or []
    assert first == PersonBox((1.0, 2.0, 3.0, 4.0), 0.5, 4.321, prepared=True)
    assert second.root_depth == 3.5
    assert boxes.of(Path("COCO_val2014_000000197388.jpg")) == [first, second]
    assert (boxes.of(Path("other.jpg")) or [])[0].root_depth is None


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        [[1, 2, 3]],
        [["1", 2, 3, 4]],
        [[True, 2, 3, 4]],
        [[10**400, 2, 3, 4]],
        [[1, 2, 0, 4]],
        "[[1, 2, NaN, 4]]",
        {"a.jpg": 3},
        [{"bbox": [1, 2, 3, 4]}],
        [{"image_id": 1}],
        [{"image_id": 1, "bbox": [1, 2, 3, 4], "root_cam": [1, 2]}],
        [{"image_id": 1, "bbox": [1, 2, 3, 4], "root_cam": [1, 2, -3]}],
    ],
)
def test_other_content_is_an_error_of_the_file(tmp_path: Path, content: object) -> None:
    path = written(tmp_path, content)
    with pytest.raises(FileError) as caught:
        BoxFile(path)
    assert str(path) in str(caught.value)


def test_more_people_than_the_maximum_are_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, {"a.jpg": [[1, 2, 3, 4]] * 3, "b.jpg": [[1, 2, 3, 4]] * 2})
    boxes = BoxFile(path, max_people=2)
    assert len(boxes.of(Path("b.jpg")) or ()) == 2
    with pytest.raises(InputError) as caught:
        boxes.of(Path("a.jpg"))
    assert caught.value.argument == "max_people"


def test_a_box_must_touch_its_image() -> None:
    for inside in ((-50.0, -50.0, 100.0, 100.0), (600.0, 400.0, 500.0, 500.0)):
        require_inside(PersonBox(inside), 640, 480, "photo.jpg")
    for outside in (
        (700.0, 10.0, 20.0, 20.0),
        (-50.0, 0.0, 40.0, 40.0),
        (0.0, 500.0, 10.0, 10.0),
        (5.0, 5.0, 0.0, 9.0),
    ):
        with pytest.raises(InputError):
            require_inside(PersonBox(outside), 640, 480, "photo.jpg")
