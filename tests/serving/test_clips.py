"""Clips as uploads, with the stand-in network."""

from fractions import Fraction
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from serving_clients import client_of, form, picture, until
from starlette.testclient import TestClient

from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.serving.schema import ClipAnswer
from i2l_meshnet.video.encode import VideoWriter
from i2l_meshnet.video.source import TICKS


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """One second of eight frames."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    frame = np.array(Image.open(BytesIO(picture(160, 200))))
    with VideoWriter(path, 160, 200, Fraction(8)) as writer:
        for number in range(8):
            writer.write(np.roll(frame, number, 1), number * TICKS // 8)
    return path.read_bytes()


def ended(client: TestClient, job: str) -> dict:
    until(lambda: client.get(job).json()["state"] in ("done", "failed"))
    return client.get(job).json()


def test_a_clip_becomes_videos_and_animation(client: TestClient, clip: bytes) -> None:
    accepted = client.post("/jobs", files=form(clip, "holiday.mp4"))
    assert accepted.status_code == 202
    status = ended(client, accepted.headers["location"])
    answer = ClipAnswer.model_validate(status["answer"])
    assert answer.clip["frames"] == 8
    assert "holiday" not in str(status)
    (person,) = answer.people
    assert (person.first_frame, person.last_frame) == (0, 7)
    animated = client.get(person.files["animation"]["glb"])
    assert isinstance(trimesh.load(BytesIO(animated.content), file_type="glb"), trimesh.Scene)
    video = client.get(answer.files["overlay"], headers={"Range": "bytes=4-7"})
    assert (video.status_code, video.content) == (206, b"ftyp")
    record = client.get(answer.files["record"]).json()
    assert record["people"][0]["files"]["arrays"]["npz"].endswith(".npz")


@pytest.mark.parametrize(
    "data",
    [
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile /etc/hostname\n",
        b"<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'></MPD>",
    ],
)
def test_playlists_that_name_other_files_are_no_clips(client: TestClient, data: bytes) -> None:
    assert client.post("/jobs", files=form(data, "list.m3u8")).status_code == 415


def test_clips_have_limits(predictor: MeshPredictor, clip: bytes, tmp_path: Path) -> None:
    with client_of(None, predictor, tmp_path, max_clip_length=0.5) as client:
        assert client.post("/predict", files=form(clip)).status_code == 415
        assert client.post("/jobs", files=form(clip)).status_code == 413
        assert client.post("/jobs", files=form(clip[:200])).status_code == 422
    with client_of(None, predictor, tmp_path, max_pixels=10_000) as client:
        assert client.post("/jobs", files=form(clip)).status_code == 413
    with client_of(None, predictor, tmp_path, max_clip_work=1e-3) as client:
        status = ended(client, client.post("/jobs", files=form(clip)).headers["location"])
        assert status["problem"]["detail"]
