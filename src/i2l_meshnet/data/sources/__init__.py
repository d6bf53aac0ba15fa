"""Data sets in the layout of the published code, and one's own in COCO's: files in, `Source` out."""

from i2l_meshnet.data.sources.base import Adapter, Needed, Source, open_source
from i2l_meshnet.data.sources.catalogue import ADAPTERS

__all__ = ["ADAPTERS", "Adapter", "Needed", "Source", "open_source"]
