"""From images to table rows, one per person. Every engine runs this."""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from i2l_meshnet import assets
from i2l_meshnet.errors import InputError, UserError
from i2l_meshnet.fleet.addresses import read_address
from i2l_meshnet.prediction.batches import batches, predict_each, read_ahead
from i2l_meshnet.prediction.boxes import BoxFile
from i2l_meshnet.prediction.detect import PersonDetector
from i2l_meshnet.prediction.hands import SIDES, HandPredictor
from i2l_meshnet.prediction.options import PredictOptions
from i2l_meshnet.prediction.predict_files import load_predictor
from i2l_meshnet.prediction.predictor import Subject
from i2l_meshnet.prediction.result_files import FORMAT_VERSION, UNITS, body_facts
from i2l_meshnet.prediction.results import PicturePrediction

_NUMBERS = pa.list_(pa.float32())
_POINTS = pa.list_(_NUMBERS)

_PERSON = {
    "box": _NUMBERS,
    "score": pa.float32(),
    "confidence": pa.float32(),
    "reliable": pa.bool_(),
    "root_depth": pa.float32(),
    "root_depth_source": pa.string(),
    "reprojection_error": pa.struct({"median": pa.float32(), "mean": pa.float32()}),
    "crop_affine": _POINTS,
    "joints_image": _POINTS,
    "keypoints": _POINTS,
    "lixel_joints": _POINTS,
    "param_joints": _POINTS,
    "pose_axis_angle": _POINTS,
    "shape": _NUMBERS,
    "translation": _NUMBERS,
}
SCHEMA = pa.schema(
    {
        "picture": pa.string(),
        "person": pa.int32(),
        "error": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
        "focal": _NUMBERS,
        "center": _NUMBERS,
        "camera_source": pa.string(),
        "boxes_source": pa.string(),
        **_PERSON,
    }
)
"""Columns of the table. The columns from `box` are the keys of a person in the .json file (docs/outputs.md).

An image without people has one row without `person`. An image that could not be read has one row with `error`.
"""
HANDS = {f"{side}_hand": pa.struct(_PERSON) for side in SIDES}
"""Additional columns with hands: the keys of a person from `box`, for each hand; null if a hand was not detected."""


class RowMaker:
    """Loads a predictor and makes rows of `SCHEMA` from addresses of images.

    The metadata of the schema has, under "i2l-meshnet", a JSON text: the names of joints, bones and shape values (of
    hands too), the network and the units.
    """

    def __init__(self, options: PredictOptions, detect: bool, threads: int | None = None) -> None:
        """detect: use the detector; it is downloaded if it is missing. threads: of the detector; None: its default.

        Raises UserError if a file cannot be loaded.
        """
        self.options, people = options, options.people
        self.boxes = None if people.boxes is None else BoxFile(people.boxes, people.max_people)
        alone = dataclasses.replace(options, people=dataclasses.replace(people, detect=False))
        self.predictor = load_predictor(alone, self.boxes)
        hands = self.predictor.hands
        if detect:
            self.predictor.detector = PersonDetector(assets.ensure("detector"), people.score, threads)
            self.predictor.detector.max_people = people.max_people
        facts = {
            "format_version": FORMAT_VERSION,
            "network": self.predictor.network_facts,
            "body": body_facts(self.predictor.body),
            "units": UNITS,
        }
        columns = SCHEMA
        if isinstance(hands, HandPredictor):
            facts["hands"] = {f"{side}_hand": body_facts(hands.body_of(side)) for side in SIDES}
            columns = pa.schema([*SCHEMA, *HANDS.items()])
        self.schema = columns.with_metadata({"i2l-meshnet": json.dumps(facts)})

    def tables(self, addresses: Iterable[str]) -> Iterator[pa.Table]:
        """Yield a table of rows for each batch of images, in order."""
        for batch in batches(read_ahead(addresses, self._load), self.options.network.batch_size):
            results = predict_each(batch, self.predictor, self.options.people.root_depth)
            rows = [row for address, result in results for row in _rows(address, result)]
            yield pa.Table.from_pylist(rows, self.schema)

    def __call__(self, addresses: pa.Table) -> pa.Table:
        """The rows of the images in the column `picture`. Ray Data maps this function."""
        return pa.concat_tables(self.tables(addresses["picture"].to_pylist()))

    def _load(self, address: str) -> Subject:
        boxes = None
        if self.boxes is not None:
            boxes = self.boxes.of(Path(address))
            if boxes is None:
                raise InputError(f"{self.boxes.path} has no boxes for {address}")
        photo = read_address(address, self.options.input.max_pixels)
        return self.predictor.prepare(photo, address, None, boxes, self.options.camera)


def _rows(address: str, result: PicturePrediction | UserError) -> list[dict[str, Any]]:
    if isinstance(result, UserError):
        return [{"picture": address, "error": str(result)}]
    record = result.record()
    picture = {
        "picture": address,
        "width": record["picture"]["width"],
        "height": record["picture"]["height"],
        "focal": record["intrinsics"]["focal"],
        "center": record["intrinsics"]["center"],
        "camera_source": record["intrinsics"]["source"],
        "boxes_source": record["boxes_source"],
    }
    if not record["people"]:
        return [picture]
    return [
        {**picture, "person": index, **person, **{f"{side}_hand": hand for side, hand in person["hands"].items()}}
        for index, person in enumerate(record["people"])
    ]
