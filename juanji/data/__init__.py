"""Images in: built-in datasets, your own images, batches, augmentation, and classical filters."""

from juanji.data import filters
from juanji.data.augment import PRESETS, Augment
from juanji.data.builtin import BUILT_IN, digits
from juanji.data.dataset import Dataset, Images, stratified
from juanji.data.findings import Finding, Report, check
from juanji.data.form import Form
from juanji.data.images import read_image, write_image
from juanji.data.jitter import Jitter
from juanji.data.labelled import Labelled
from juanji.data.loader import Loader, batches
from juanji.data.loading import load
from juanji.data.origin import find
from juanji.data.overview import Survey, survey
from juanji.data.preprocessing import Preprocessing
from juanji.data.public import PUBLIC
from juanji.data.split import split

__all__ = [
    "BUILT_IN",
    "PRESETS",
    "PUBLIC",
    "Augment",
    "Dataset",
    "Finding",
    "Form",
    "Images",
    "Jitter",
    "Labelled",
    "Loader",
    "Preprocessing",
    "Report",
    "Survey",
    "batches",
    "check",
    "digits",
    "filters",
    "find",
    "load",
    "read_image",
    "split",
    "stratified",
    "survey",
    "write_image",
]
