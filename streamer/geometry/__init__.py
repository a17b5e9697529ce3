"""Where the pixels are: positions of hits, from the field's three kinds of geometry file."""

from streamer.geometry.geometry import Geometry
from streamer.geometry.layouts import tile_of
from streamer.geometry.places import Pixels, Places

__all__ = ["Geometry", "Pixels", "Places", "tile_of"]
