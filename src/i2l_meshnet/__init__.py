"""I2L-MeshNet: 3D human meshes from one photograph.

    from i2l_meshnet import MeshPredictor
    people = MeshPredictor.load()("photo.jpg")
    people.save("results")

Public names are imported when they are first used, so importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from i2l_meshnet.bodies import load_body
    from i2l_meshnet.bodies.base import Body, BodyMesh, BodyParams
    from i2l_meshnet.errors import FileError, InputError, UserError
    from i2l_meshnet.geometry.camera import Camera
    from i2l_meshnet.models.meshnet import MeshNet
    from i2l_meshnet.prediction.hands import HandPredictor
    from i2l_meshnet.prediction.intrinsics import Intrinsics
    from i2l_meshnet.prediction.predictor import MeshPredictor
    from i2l_meshnet.prediction.results import PicturePrediction, Prediction, SaveOptions
    from i2l_meshnet.skeletons import Skeleton
    from i2l_meshnet.video.follow import predict_video
    from i2l_meshnet.video.track import PersonTrack

_HOMES = {
    "Body": "bodies.base",
    "BodyMesh": "bodies.base",
    "BodyParams": "bodies.base",
    "Camera": "geometry.camera",
    "FileError": "errors",
    "HandPredictor": "prediction.hands",
    "InputError": "errors",
    "Intrinsics": "prediction.intrinsics",
    "MeshNet": "models.meshnet",
    "MeshPredictor": "prediction.predictor",
    "PersonTrack": "video.track",
    "PicturePrediction": "prediction.results",
    "Prediction": "prediction.results",
    "SaveOptions": "prediction.results",
    "Skeleton": "skeletons",
    "UserError": "errors",
    "load_body": "bodies",
    "predict_video": "video.follow",
}

__all__ = [
    "Body",
    "BodyMesh",
    "BodyParams",
    "Camera",
    "FileError",
    "HandPredictor",
    "InputError",
    "Intrinsics",
    "MeshNet",
    "MeshPredictor",
    "PersonTrack",
    "PicturePrediction",
    "Prediction",
    "SaveOptions",
    "Skeleton",
    "UserError",
    "load_body",
    "predict_video",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
