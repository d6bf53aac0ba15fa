"""The data sets by name: a new one is a file beside this and a line here."""

from i2l_meshnet.data.sources import coco, custom, freihand, human36m, muco, pw3d, surreal
from i2l_meshnet.data.sources.base import Adapter

ADAPTERS: dict[str, Adapter] = {
    "Human36M": human36m.ADAPTER,
    "MuCo": muco.ADAPTER,
    "MSCOCO": coco.ADAPTER,
    "PW3D": pw3d.ADAPTER,
    "FreiHAND": freihand.ADAPTER,
    "SURREAL": surreal.ADAPTER,
    "Custom": custom.ADAPTER,
}
