"""Annotation files made from the original releases of 3DPW and SURREAL."""

from i2l_meshnet.data.convert.pw3d import Pw3dOptions, convert_pw3d
from i2l_meshnet.data.convert.surreal import SurrealOptions, convert_surreal

__all__ = ["Pw3dOptions", "SurrealOptions", "convert_pw3d", "convert_surreal"]
