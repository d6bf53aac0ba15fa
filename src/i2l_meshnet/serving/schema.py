"""Types of requests and responses, for the OpenAPI description."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from i2l_meshnet.prediction.detect import DEFAULT_THRESHOLD
from i2l_meshnet.prediction.results import MeshFormat
from i2l_meshnet.serving.jobs import State


class Problem(BaseModel):
    """Why a request failed."""

    detail: str = Field(description="one line: what is wrong, and what to do")


class Options(BaseModel):
    """The query parameters of a prediction."""

    model_config = ConfigDict(extra="forbid")

    focal: Annotated[float | None, Field(ge=1, le=1e6, allow_inf_nan=False)] = Field(
        None, description="focal length, pixels. Default: EXIF, then a field of view of 55 degrees"
    )
    fov: Annotated[float | None, Field(ge=1, le=170, allow_inf_nan=False)] = Field(
        None, description="field of view along the longer side, degrees. Cannot be combined with focal"
    )
    score: Annotated[float, Field(ge=0.05, le=1)] = Field(
        DEFAULT_THRESHOLD, description="minimum score of a detected person"
    )
    formats: list[MeshFormat] = Field(
        ["glb"], max_length=8, description="formats of the mesh files; repeat the parameter for several"
    )


class PhotoPerson(BaseModel):
    """One person; docs/outputs.md describes all keys. Camera frame (x right, y down, z forward), metres; pixels."""

    model_config = ConfigDict(extra="allow")

    box: list[float] = Field(description="x, y, width, height, pixels")
    score: float = Field(description="score of the box")
    confidence: float | None = Field(description="mean keypoint confidence")
    reliable: bool = Field(description="false: do not use the mesh")
    root_depth: float = Field(description="distance of the root joint, metres")
    reprojection_error: dict[str, float] | None = Field(description="median and mean, pixels")
    joints_image: list[list[float]] = Field(description="2D joints, pixels")
    lixel_joints: list[list[float]] = Field(description="joints of the lixel mesh, metres")
    files: dict[str, dict[str, str]] = Field(description="URLs of mesh files, by mesh and format")


class PhotoAnswer(BaseModel):
    """The people of a photo; docs/outputs.md describes all keys."""

    model_config = ConfigDict(extra="allow")

    id: str = Field(description="id of the job that keeps the files")
    keep_seconds: float = Field(description="seconds until the files are deleted")
    left_out: int = Field(description="number of detected people beyond the server's limit")
    picture: dict[str, Any] = Field(description="width and height, pixels")
    intrinsics: dict[str, Any] = Field(description="focal length, principal point, and their source")
    people: list[PhotoPerson]
    files: dict[str, str] = Field(description="URLs of drawn images, scenes, arrays and this record")


class ClipPerson(BaseModel):
    """One person of a clip; docs/outputs.md describes all keys."""

    model_config = ConfigDict(extra="allow")

    number: int
    first_frame: int
    last_frame: int
    confidence: float | None = Field(description="mean keypoint confidence")
    files: dict[str, dict[str, str]] = Field(description="URLs of arrays and animation")


class ClipAnswer(BaseModel):
    """The people of a clip; docs/outputs.md describes all keys."""

    model_config = ConfigDict(extra="allow")

    id: str = Field(description="id of the job that keeps the files")
    keep_seconds: float = Field(description="seconds until the files are deleted")
    clip: dict[str, Any] = Field(description="size, frames, frame rate, seconds")
    people: list[ClipPerson]
    files: dict[str, str] = Field(description="URLs of videos and of this record")


class JobStatus(BaseModel):
    """The state of a job."""

    id: str
    state: State
    ahead: int = Field(description="number of jobs before this one")
    stage: str = Field(description="the current step")
    share: float = Field(description="share of the work that is done, 0 to 1")
    problem: Problem | None = Field(None, description="why the job failed")
    answer: PhotoAnswer | ClipAnswer | None = Field(None, description="once the job is done")


class Health(BaseModel):
    """Whether the server is alive."""

    status: str
    waiting: int = Field(description="number of jobs that wait or run")


class About(BaseModel):
    """The server's limits and version."""

    version: str
    max_upload_bytes: int
    max_pixels: int
    max_people: int
    max_clip_length: float = Field(description="seconds")
    keep_seconds: float
