"""Images in: built-in datasets, image files, batches, augmentation, and classical filters."""

from juanji.data import filters
from juanji.data.augment import PRESETS, Augment
from juanji.data.builtin import BUILT_IN, digits, load
from juanji.data.dataset import Dataset, Images, stratified
from juanji.data.images import read_image, write_image
from juanji.data.jitter import Jitter
from juanji.data.loader import Loader, batches
from juanji.data.preprocessing import Preprocessing

__all__ = [
    "BUILT_IN",
    "PRESETS",
    "Augment",
    "Dataset",
    "Images",
    "Jitter",
    "Loader",
    "Preprocessing",
    "batches",
    "digits",
    "filters",
    "load",
    "read_image",
    "stratified",
    "write_image",
]
