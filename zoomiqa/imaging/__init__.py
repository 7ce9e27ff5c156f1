"""Pictures: opening, saving, cropping, measuring and distorting them. No prompts and no models."""

from zoomiqa.imaging.opening import SUFFIXES, find_pictures, open_picture
from zoomiqa.imaging.picture import Metadata, Picture, PixelArray, crop, picture_from_array, render
from zoomiqa.imaging.saving import encode_picture, save_picture

__all__ = [
    "SUFFIXES",
    "Metadata",
    "Picture",
    "PixelArray",
    "crop",
    "encode_picture",
    "find_pictures",
    "open_picture",
    "picture_from_array",
    "render",
    "save_picture",
]
