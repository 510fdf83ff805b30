"""Random erasing: a box of the image replaced by noise, so that no single part decides alone.

Source: Zhong, Zheng, Kang, Li and Yang, "Random erasing data augmentation", 2020 (arXiv 1708.04896), whose ranges these
are, with random values in the box (RE-R). torchvision's RandomErasing.
"""

from __future__ import annotations

import numpy as np

from juanji.data import cropping
from juanji.graph import Array

AREA = (0.02, 0.33)  # part of the image
RATIO = (0.3, 3.3)  # width / height
DRAWS = 4 + cropping.DRAWS  # for each image


def erase(x: Array, probability: float, draws: Array, noise: Array) -> None:
    """Erase a box in some of the images x (n, H, W, C), in place.

    draws  (n, DRAWS), uniform in [0, 1)
    noise  (2·H, 2·W, C), uniform in [0, 1): each image takes its values from another place of it
    """
    height, width = x.shape[1:3]
    places = cropping.boxes(draws[:, 4:], (height, width), AREA, RATIO)
    top, left, tall, wide = (np.rint(place).astype(int) for place in places)
    down, right = (draws[:, 1:3] * [height, width]).astype(int).T
    for i in np.flatnonzero(draws[:, 0] < probability):
        rows, columns = slice(top[i], top[i] + tall[i]), slice(left[i], left[i] + wide[i])
        part = x[i, rows, columns]
        part[...] = noise[down[i] : down[i] + part.shape[0], right[i] : right[i] + part.shape[1]]
