"""Random changes of images: each against a definition of its own, how often they happen, and how they are chosen."""

import colorsys
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from juanji.data import (
    PRESETS,
    Augment,
    Images,
    Jitter,
    Preprocessing,
    affine,
    batches,
    colours,
    cropping,
    erasing,
    mixing,
)
from juanji.data.changes import Draws, flips
from juanji.data.preparation import Preparation
from juanji.data.randaugment import OPERATIONS, chosen
from juanji.errors import ArgumentError, UnknownNameError

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (13, 17, 3), np.uint8)
SMOOTH = np.rint(
    127 + 100 * np.sin(np.arange(21)[:, None, None] / 4 + np.arange(3)) * np.cos(np.arange(25)[None, :, None] / 5)
).astype(np.uint8)  # what bilinear sampling can be told apart on


def picture(x):
    return Image.fromarray(x)


def prepared(x, change, epoch=1, size=None, classes=None, seed=0):
    size = size or x.shape[1:3]
    images = Images(x, np.arange(len(x)))
    preprocessing = Preprocessing(size, x.shape[3], (0.0,) * x.shape[3], (1.0,) * x.shape[3])
    order = np.arange(len(x))
    return Preparation(images, order, seed, epoch, change, preprocessing, classes)


def all_of(x, change, **options):
    return prepared(x, change, **options)(slice(0, len(x)))[0]


def uniform(n, width, seed=0):
    return np.random.default_rng(seed).random((n, width), np.float32)


# Crops and flips


@given(st.integers(1, 9), st.integers(1, 12), st.integers(-30, 30))
@settings(deadline=None)
def test_places_reflect_as_numpy_pads(extent, size, start):
    (at,) = cropping.places(extent, size, np.array([start]), np.array([False]))
    padded = np.pad(np.arange(extent), 45, mode="reflect")
    assert at.tolist() == padded[45 + start : 45 + start + size].tolist()
    (mirrored,) = cropping.places(extent, size, np.array([start]), np.array([True]))
    assert mirrored.tolist() == at.tolist()[::-1]


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.integers(0, 3))
@settings(deadline=None)
def test_a_cut_is_a_slice(height, width, channels, top):
    x = RNG.integers(0, 256, (2, height + top, width + 2, channels), np.uint8)
    rows = cropping.places(height + top, height, np.array([top, 0]), np.array([False, True]))
    columns = cropping.places(width + 2, width, np.array([1, 2]), np.array([True, False]))
    found = cropping.cut(x, rows, columns)
    assert np.array_equal(found[0], x[0, top : top + height, 1 : 1 + width][:, ::-1])
    assert np.array_equal(found[1], x[1, :height, 2 : 2 + width][::-1])


def test_the_shift_is_by_whole_pixels_each_as_often():
    x = np.broadcast_to(np.arange(16 * 16, dtype=np.uint8).reshape(1, 16, 16, 1), (9000, 16, 16, 1))
    found = np.rint(all_of(x, Augment(crop="shift", shift=0.25)) * 255).astype(int)
    corner = found[:, 8, 8, 0]
    down, right = corner // 16 - 8, corner % 16 - 8
    for moved in (down, right):
        counts = np.bincount(moved + 4, minlength=9)
        assert len(counts) == 9
        assert np.abs(counts - 1000).max() < 4 * np.sqrt(1000)
    assert abs(np.corrcoef(down, right)[0, 1]) < 0.04
    one = int(np.flatnonzero((down == 4) & (right == -4))[0])
    expected = np.pad(x[one, ..., 0], 4, mode="reflect")[8:24, 0:16]
    assert np.array_equal(found[one, ..., 0], expected)


def test_the_centre_is_cut_from_a_larger_image():
    x = RNG.integers(0, 256, (3, 9, 8, 3), np.uint8)
    assert np.array_equal(all_of(x, Augment(), size=(5, 6)), Images(x, np.arange(3)).read()[:, 2:7, 1:7])
    assert np.array_equal(all_of(x, None, size=(5, 6)), all_of(x, Augment(), size=(5, 6)))


@pytest.mark.parametrize("room", [0, 6])
def test_shift_cuts_around_the_centre_of_a_larger_image(room):
    x = np.arange(16 + room, dtype=np.float32)[None, :, None, None] / 32
    x = np.broadcast_to(x, (500, 16 + room, 4, 1))
    first = all_of(x, Augment(crop="shift", shift=0.125), size=(16, 4))[:, 8, 0, 0] * 32
    assert set(first.tolist()) == set(range(6 + room // 2, 11 + room // 2))


def test_random_flips():
    x = RNG.integers(0, 256, (4000, 2, 3, 1), np.uint8)
    found = all_of(x, Augment(flip="random", vertical_flip=True))
    plain = Images(x, np.arange(4000)).read()
    ways = [plain, plain[:, :, ::-1], plain[:, ::-1], plain[:, ::-1, ::-1]]
    same = np.array([(found == way).all(axis=(1, 2, 3)) for way in ways])
    assert same.any(axis=0).all()
    assert np.abs(same.mean(axis=1) - 0.25).max() < 0.03


def test_an_alternating_flip_shows_both_sides_in_any_two_epochs():
    draws = [Draws(0, epoch, np.arange(4000)) for epoch in range(1, 6)]
    mirrored = np.array([flips(Augment(flip="alternating"), each)[0] for each in draws])
    assert (mirrored[:-1] != mirrored[1:]).all()
    assert abs(mirrored[0].mean() - 0.5) < 0.03
    other = flips(Augment(flip="alternating"), Draws(1, 1, np.arange(4000)))[0]
    assert 0.4 < (other == mirrored[0]).mean() < 0.6


def test_flipping_twice_changes_nothing():
    maps = affine.mirror(np.array([True, True, False]), np.array([False, True, True]), (13, 17))
    for one in maps:
        there = affine.resample(picture(PHOTO), one, (13, 17))
        assert np.array_equal(affine.resample(there, one, (13, 17)), PHOTO)
        assert np.array_equal(one @ one, np.eye(3))
    assert np.array_equal(affine.resample(picture(PHOTO), maps[1], (13, 17)), PHOTO[::-1, ::-1])


# Boxes


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted),
    st.tuples(st.floats(0.1, 9), st.floats(0.1, 9)).map(sorted),
)
@settings(deadline=None)
def test_boxes_are_inside_and_of_the_size_and_shape_that_was_asked(height, width, area, ratio):
    top, left, tall, wide = cropping.boxes(uniform(20, cropping.DRAWS), (height, width), area, ratio)
    assert (np.minimum(top, left) >= 0).all()
    assert (top + tall <= height + 1e-9).all()
    assert (left + wide <= width + 1e-9).all()
    assert (wide / tall >= ratio[0] - 1e-9).all()
    assert (wide / tall <= ratio[1] + 1e-9).all()
    covered = tall * wide / (height * width)
    largest = min(height * width, height * height * ratio[1], width * width / ratio[0]) / (height * width)
    assert (covered <= max(area[1], largest) + 1e-9).all()
    assert ((covered >= area[0] - 1e-9) | np.isclose(covered, largest)).all() or largest < area[0]


def test_boxes_have_uniform_areas_and_log_uniform_ratios():
    top, left, tall, wide = cropping.boxes(uniform(20000, cropping.DRAWS), (100, 100), (0.1, 0.5), (1 / 2, 2))
    areas, ratios = tall * wide / 10000, np.log(wide / tall)
    assert abs(areas.mean() - 0.3) < 4 * 0.4 / np.sqrt(12 * 20000)
    assert areas.var() == pytest.approx(0.4**2 / 12, rel=0.03)
    assert abs(ratios.mean()) < 4 * ratios.std() / np.sqrt(20000)
    assert ratios.var() == pytest.approx((2 * np.log(2)) ** 2 / 12, rel=0.03)
    for offset, room in [(top, 100 - tall), (left, 100 - wide)]:
        place = offset / room
        assert abs(place.mean() - 0.5) < 4 / np.sqrt(12 * 20000)
        assert place.var() == pytest.approx(1 / 12, rel=0.03)


def test_where_no_box_fits_it_is_the_largest_in_the_middle():
    top, left, tall, wide = cropping.boxes(uniform(3, cropping.DRAWS), (10, 40), (1.0, 1.0), (1.0, 2.0))
    assert np.allclose([top[0], left[0], tall[0], wide[0]], [0, 10, 10, 20])


def test_the_whole_image_as_a_random_box_is_the_image():
    x = RNG.integers(0, 256, (3, 8, 8, 3), np.uint8)
    assert np.array_equal(all_of(x, Augment(crop="random", scale=(1, 1), ratio=(1, 1))), all_of(x, None))


def test_a_random_box_is_cut_and_stretched():
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, None, :, None] * 4, (400, 64, 64, 1))
    found = all_of(ramp, Augment(crop="random", scale=(0.25, 0.25), ratio=(1, 1)), size=(16, 16)) * 255 / 4
    step = np.diff(found[:, 0, :, 0], axis=1)
    assert np.allclose(step.mean(axis=1), 2, atol=0.05)  # 32 pixels seen with 16
    left = found[:, 0, 0, 0]
    assert left.min() < 3
    assert left.max() > 29
    assert (found[:, 0] == found[:, -1]).all()


@pytest.mark.parametrize("extra", [{}, {"rotation": 1e-7}])
def test_a_random_box_is_mirrored_as_often(extra):
    x = RNG.integers(0, 256, (2000, 4, 4, 1), np.uint8)
    whole = {"crop": "random", "scale": (1, 1), "ratio": (1, 1)}
    found = all_of(x, Augment(**whole, flip="random", vertical_flip=True, **extra))
    plain = Images(x, np.arange(2000)).read()
    ways = [plain, plain[:, :, ::-1], plain[:, ::-1], plain[:, ::-1, ::-1]]
    same = np.array([(np.abs(found - way) < 1.5 / 255).all(axis=(1, 2, 3)) for way in ways])
    assert same.any(axis=0).all()
    assert np.abs(same.mean(axis=1) - 0.25).max() < 0.04


def test_a_box_is_turned_after_it_is_cut():
    x = np.stack([SMOOTH] * 20)
    cut = all_of(x, Augment(crop="random", flip="random"), size=(19, 18))
    turned = all_of(x, Augment(crop="random", flip="random", rotation=1e-7), size=(19, 18))
    assert np.abs(cut - turned).max() < 4 / 255
    assert np.abs(cut - all_of(x, Augment(crop="random"), size=(19, 18))).max() > 20 / 255


def test_angles_are_uniform_both_ways():
    x = np.zeros((1500, 33, 33, 1), np.uint8)
    x[:, 15:18, 27:30] = 255  # to the right of the centre
    found = all_of(x, Augment(rotation=40))[..., 0]
    rows, columns = np.indices((33, 33)) - 16
    angles = np.rad2deg(np.arctan2((found * rows).sum(axis=(1, 2)), (found * columns).sum(axis=(1, 2))))
    assert np.abs(angles).max() < 41
    assert abs(angles.mean()) < 4 * 80 / np.sqrt(12 * 1500)
    assert angles.var() == pytest.approx(80**2 / 12, rel=0.08)


# Affine maps


def bilinear(x, matrix, size):
    """x (H, W, C) seen through a map: float64, edges repeated for half a pixel, black beyond."""
    height, width = size
    places = np.stack([*np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), np.ones(size)], axis=-1)
    across, down, _ = np.moveaxis(places @ matrix.T, -1, 0)
    outside = (across < 0) | (across >= x.shape[1]) | (down < 0) | (down >= x.shape[0])
    column, row = np.clip(across - 0.5, 0, x.shape[1] - 1), np.clip(down - 0.5, 0, x.shape[0] - 1)
    left, top = np.floor(column).astype(int), np.floor(row).astype(int)
    right, bottom = np.minimum(left + 1, x.shape[1] - 1), np.minimum(top + 1, x.shape[0] - 1)
    u, v = (column - left)[..., None], (row - top)[..., None]
    x = x.astype(np.float64)
    upper, lower = x[top, left] * (1 - u) + x[top, right] * u, x[bottom, left] * (1 - u) + x[bottom, right] * u
    return np.where(outside[..., None], 0, upper * (1 - v) + lower * v)


MAPS = {
    "rotation": affine.rotation(25.0, (21, 25)),
    "shear x": affine.shear(x=0.3),
    "shear y": affine.shear(y=-0.2),
    "shift": affine.translation(2.3, -4.6),
    "composed": affine.box(*np.array([[2.5], [3.0], [14.0], [15.0]]), (21, 25))[0] @ affine.rotation(-10.0, (21, 25)),
}


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("size", [(21, 25), (12, 30)])
def test_resampling_is_bilinear(name, size):
    found = np.asarray(affine.resample(picture(SMOOTH), MAPS[name], size)).astype(float)
    expected = bilinear(SMOOTH, MAPS[name], size)
    # At the very edge of what is outside Pillow's fixed-point places may fall on the other side.
    wrong = np.abs(found - expected).max(axis=-1) > 1.01
    assert wrong.mean() < 0.02


def test_whole_pixels_and_right_angles_are_exact():
    moved = np.asarray(affine.resample(picture(PHOTO), affine.translation(2, -3), (13, 17)))
    assert np.array_equal(moved[3:, :-2], PHOTO[:-3, 2:])
    assert not moved[:3].any()
    assert not moved[:, -2:].any()
    square = PHOTO[:, :13]
    turned = np.asarray(affine.resample(picture(square), affine.rotation(90.0, (13, 13)), (13, 13)))
    assert np.abs(turned.astype(int) - np.rot90(square, -1)).max() <= 1
    part = affine.box(*np.array([[2.0], [3.0], [6.0], [5.0]]), (6, 5))[0]
    assert np.array_equal(affine.resample(picture(PHOTO), part, (6, 5)), PHOTO[2:8, 3:8])


def test_opposite_rotations_cancel():
    both = affine.rotation(np.array([30.0, 77.0]), (8, 9)) @ affine.rotation(np.array([-30.0, -77.0]), (8, 9))
    assert np.allclose(both, np.eye(3))
    centre = affine.rotation(41.0, (8, 9)) @ [4.5, 4, 1]
    assert np.allclose(centre, [4.5, 4, 1])


@pytest.mark.parametrize("turn", [0.0, 10.0])
def test_an_image_that_gets_much_smaller_is_averaged(turn):
    checks = np.indices((128, 128)).sum(0).astype(np.uint8) % 2 * 255
    matrix = affine.box(*np.array([[0.0], [0.0], [128.0], [128.0]]), (16, 16))[0] @ affine.rotation(turn, (16, 16))
    middle = np.asarray(affine.resample(picture(checks), matrix, (16, 16)))[5:11, 5:11]
    assert np.abs(middle.astype(int) - 127).max() <= 2


# Colours, by definitions of their own (those of the headers of Pillow's and torchvision's functions) on (H, W, C)


def grey(x):
    return np.floor((x @ [19595, 38470, 7471] + 32768) / 65536) if x.shape[-1] == 3 else x[..., 0]


def mixed(x, dull, factor):
    return np.clip(dull + factor * (x - dull), 0, 255)


def blurred(x):
    inner = sum(np.roll(x, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)) + 4 * x
    result = x.copy()
    result[1:-1, 1:-1] = np.rint(inner[1:-1, 1:-1] / 13)
    return result


def stretched(x):
    low, high = x.min(axis=(0, 1)), x.max(axis=(0, 1))
    return np.where(high > low, (x - low) * 255 / np.maximum(high - low, 1), x)


def flattened(x):
    """Pillow's equalize: values by the number of pixels below them, in steps of a 255th of all but the last bin."""
    result = np.empty_like(x)
    for channel in range(x.shape[-1]):
        counts = np.bincount(x[..., channel].astype(int).ravel(), minlength=256)
        step = (counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
        below = np.concatenate([[0], np.cumsum(counts)[:-1]])
        table = np.minimum((step // 2 + below) // step, 255) if step else np.arange(256)
        result[..., channel] = table[x[..., channel].astype(int)]
    return result


ENHANCED = {
    "Brightness": lambda x, m: mixed(x, 0, 1 + m),
    "Color": lambda x, m: mixed(x, grey(x)[..., None], 1 + m),
    "Contrast": lambda x, m: mixed(x, np.floor(grey(x).mean() + 0.5), 1 + m),
    "Sharpness": lambda x, m: mixed(x, blurred(x), 1 + m),
}
RECOLOURED = {
    **ENHANCED,
    "Posterize": lambda x, bits: x - x % 2 ** (8 - round(bits)),
    "Solarize": lambda x, threshold: np.where(x < threshold, x, 255 - x),
    "AutoContrast": lambda x, _: stretched(x),
    "Equalize": lambda x, _: flattened(x),
}
MOVED = {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"}


def test_every_operation_has_a_definition_here():
    assert {name for name, operation in OPERATIONS.items() if operation.colour} == set(RECOLOURED)
    assert {name for name, operation in OPERATIONS.items() if operation.matrix} == MOVED
    assert len(OPERATIONS) == 14


@pytest.mark.parametrize("name", RECOLOURED)
@pytest.mark.parametrize("magnitude", [0, 3, 9, 20, 30])
@pytest.mark.parametrize("x", [PHOTO, SMOOTH, SMOOTH // 2 + 40, PHOTO[..., :1], np.full((4, 4, 3), 77, np.uint8)])
def test_operations_on_colours(name, magnitude, x):
    operation = OPERATIONS[name]
    for draw in (0.1, 0.9):
        amount = operation.amount(magnitude, draw)
        found = np.asarray(operation.colour(picture(x.squeeze(-1) if x.shape[-1] == 1 else x), amount), float)
        expected = RECOLOURED[name](x.astype(float), amount)
        assert np.abs(found.reshape(x.shape) - expected).max() <= 1.01


@pytest.mark.parametrize(
    ("name", "at_0", "at_9", "at_30"),
    [
        ("ShearX", 0, 0.09, 0.3), ("ShearY", 0, 0.09, 0.3), ("Rotate", 0, 9, 30),
        ("TranslateX", 0, 0.13595, 0.45317), ("TranslateY", 0, 0.13595, 0.45317),
        ("Brightness", 0, 0.27, 0.9), ("Color", 0, 0.27, 0.9), ("Contrast", 0, 0.27, 0.9), ("Sharpness", 0, 0.27, 0.9),
        ("Posterize", 8, 6.8, 4), ("Solarize", 255, 178.5, 0),
    ],
)  # fmt: skip
def test_ranges_are_those_of_torchvision(name, at_0, at_9, at_30):
    operation = OPERATIONS[name]
    assert [operation.amount(m) for m in (0, 9, 30)] == pytest.approx([at_0, at_9, at_30], abs=1e-4)
    assert operation.signed == (name not in ("Posterize", "Solarize"))
    assert operation.amount(9, 0.7) == pytest.approx(-at_9 if operation.signed else at_9, abs=1e-4)


@pytest.mark.parametrize("name", sorted(MOVED))
def test_operations_that_move_do_nothing_at_magnitude_0(name):
    assert np.allclose(OPERATIONS[name].matrix(OPERATIONS[name].amount(0), (13, 17)), np.eye(3))


def test_translations_are_in_parts_of_the_side():
    assert np.allclose(OPERATIONS["TranslateX"].matrix(0.25, (8, 16)), affine.translation(x=4))
    assert np.allclose(OPERATIONS["TranslateY"].matrix(0.25, (8, 16)), affine.translation(y=2))


def test_randaugment_chooses_each_operation_as_often():
    drawn = [chosen(row.reshape(2, 2), 9) for row in uniform(14000, 4)]
    for place in (0, 1):
        names = [id(operations[place][0]) for operations in drawn]
        counts = np.array([names.count(id(operation)) for operation in OPERATIONS.values()])
        assert np.abs(counts - 1000).max() < 4.5 * np.sqrt(1000)
    amounts = [amount for ops in drawn for operation, amount in ops if operation is OPERATIONS["Rotate"]]
    assert set(amounts) == {9, -9}
    assert abs(np.mean(np.sign(amounts))) < 0.1


def test_randaugment_is_its_operations_one_after_another():
    x = np.stack([SMOOTH] * 60)
    change = Augment(randaugment=2)
    found = np.rint(all_of(x, change) * 255).astype(np.uint8)
    draws = Draws(0, 1, np.arange(60))("randaugment", 4).reshape(60, 2, 2)
    for i in range(60):
        matrix, image = np.eye(3), picture(SMOOTH)
        operations = chosen(draws[i], 9)
        for operation, amount in operations:
            matrix = matrix @ operation.matrix(amount, (21, 25)) if operation.matrix else matrix
        image = affine.resample(image, matrix, (21, 25))
        for operation, amount in operations:
            image = operation.colour(image, amount) if operation.colour else image
        assert np.array_equal(found[i], image)


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.0, 0.25])
def test_hue_moves_along_the_circle(turn):
    colour = (200, 60, 40)
    h, s, v = colorsys.rgb_to_hsv(*(value / 255 for value in colour))
    expected = np.array(colorsys.hsv_to_rgb((h + turn) % 1, s, v)) * 255
    found = np.asarray(colours.hue(Image.new("RGB", (1, 1), colour), turn))[0, 0]
    assert np.abs(found - expected).max() < 6  # Pillow's HSV has 8 bits for each
    assert colours.hue(Image.new("L", (1, 1), 9), turn).getpixel((0, 0)) == 9


def test_jittered_colours_are_uniform_around_none():
    shade = np.full((4000, 1, 1, 1), 100, np.uint8)
    factor = all_of(shade, Augment(brightness=0.5))[:, 0, 0, 0] * 255 / 100
    assert (factor > 0.49).all()
    assert (factor < 1.51).all()
    assert abs(factor.mean() - 1) < 0.02
    assert factor.var() == pytest.approx(1 / 12, rel=0.06)


def test_jittered_colours_come_in_the_order_of_their_keys():
    x = np.full((1, 1, 3), (200, 250, 40), np.uint8)
    amounts = {"brightness": 0.9, "contrast": 0.0, "saturation": 0.9, "hue": 0.0}
    brightness, saturation = 0.72, -0.72
    brighter, duller = ENHANCED["Brightness"], ENHANCED["Color"]
    floats = x.astype(float)
    expected = {
        (0.1, 0.2, 0.3, 0.4): duller(brighter(floats, brightness), saturation),
        (0.4, 0.3, 0.2, 0.1): brighter(duller(floats, saturation), brightness),
    }
    assert np.abs(np.diff([*expected.values()], axis=0)).max() > 10
    for keys, value in expected.items():
        draws = np.array([0.9, 0.5, 0.1, 0.5, *keys], np.float32)
        assert np.abs(np.asarray(colours.jittered(picture(x), amounts, draws)) - value).max() < 2.5


# Erasing


def test_boxes_are_erased_as_often_and_as_large_as_asked():
    x = np.zeros((3000, 24, 24, 1), np.float32)
    noise = np.full((48, 48, 1), 0.75, np.float32)
    erasing.erase(x, 0.3, uniform(3000, erasing.DRAWS), noise)
    parts = (x == 0.75).mean(axis=(1, 2, 3))
    assert set(np.unique(x).tolist()) == {0.0, 0.75}
    assert abs((parts > 0).mean() - 0.3) < 4 * np.sqrt(0.21 / 3000)
    # Uniform from 2 % to 33 %, rounded to pixels; boxes that do not fit are drawn again, which are rather large ones.
    assert 0.14 < parts[parts > 0].mean() < 0.18
    assert parts.max() < 0.37
    erased = x[parts > 0, :, :, 0] > 0
    for one in erased[:50]:
        rows, columns = np.flatnonzero(one.any(axis=1)), np.flatnonzero(one.any(axis=0))
        assert one[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


def test_what_is_erased_is_noise_and_the_rest_is_left():
    x = RNG.integers(0, 256, (200, 16, 9, 3), np.uint8)
    found, plain = all_of(x, Augment(erasing=1.0)), all_of(x, None)
    changed = (found != plain).any(axis=-1)
    assert changed.any(axis=(1, 2)).mean() > 0.95
    values = found[changed]
    assert abs(values.mean() - 0.5) < 0.02
    assert values.var() == pytest.approx(1 / 12, rel=0.05)
    assert not np.array_equal(found, all_of(x, Augment(erasing=1.0), epoch=2))
    assert np.array_equal(all_of(x, Augment(erasing=0.0)), plain)


# Mixing


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.4, 1.0, 2.0, 8.0])
def test_shares_are_distributed_by_beta(alpha):
    share = mixing.beta(np.random.default_rng(1).random(40000), alpha)
    variance = 1 / (4 * (2 * alpha + 1))
    assert ((share >= 0) & (share <= 1)).all()
    assert abs(share.mean() - 0.5) < 4 * np.sqrt(variance / 40000)
    assert share.var() == pytest.approx(variance, rel=0.03)
    draws = np.linspace(0.01, 0.49, 9)
    assert np.allclose(mixing.beta(draws, alpha) + mixing.beta(1 - draws, alpha), 1)


@pytest.mark.parametrize("alpha", [600.0, 1e4, 1e12])
def test_large_shares_do_not_vanish(alpha):
    share = mixing.beta(np.linspace(0.001, 0.999, 999), alpha)
    assert (np.abs(share - 0.5) < 4 / np.sqrt(8 * alpha) + 0.5 / mixing.STEPS).all()
    assert (np.diff(share) >= 0).all()


def test_beta_1_is_uniform():
    draws = np.linspace(0, 1, 101)
    assert np.allclose(mixing.beta(draws, 1.0), draws, atol=1e-6)


CODED = np.broadcast_to((np.arange(40, dtype=np.float32) / 64)[:, None, None, None], (40, 12, 16, 1))


def test_labels_have_the_share_that_the_pixels_have():
    x, y = prepared(CODED, Augment(cutmix=1.0), classes=40)(slice(0, 40))
    assert y.dtype == np.float32
    assert np.allclose(y.sum(axis=1), 1)
    for i in range(40):
        codes, counts = np.unique(np.rint(x[i] * 64).astype(int), return_counts=True)
        assert set(codes) <= {i, (i + 1) % 40}
        shares = np.zeros(40)
        shares[codes] = counts / counts.sum()
        assert np.allclose(y[i], shares, atol=1e-6)
    assert 0.35 < y[np.arange(40), np.arange(40)].mean() < 0.9


@pytest.mark.parametrize(
    ("kept", "middle", "share", "corner"),
    [
        (0.75, (0.5, 0.5), 0.75, (4, 8)),  # half as high and half as wide
        (0.75, (0.0, 1.0), 15 / 16, (0, 24)),  # only a quarter of that is inside
        (0.0, (0.5, 0.5), 0.0, (0, 0)),
        (1.0, (0.5, 0.5), 1.0, None),
    ],
)
def test_a_pasted_box(kept, middle, share, corner):
    image = np.zeros((16, 32, 3), np.float32)
    assert mixing.paste(image, np.ones_like(image), kept, middle) == pytest.approx(share)
    assert 1 - image.mean() == pytest.approx(share)
    pasted = np.argwhere(image[..., 0])
    assert (tuple(pasted.min(axis=0).tolist()) if len(pasted) else None) == corner


def test_mixup_is_a_weighted_mean():
    x, y = prepared(CODED, Augment(mixup=1.0), classes=40)(slice(0, 40))
    assert np.allclose(y.sum(axis=1), 1)
    assert np.allclose(x, (y @ CODED[:, 0, 0, 0])[:, None, None, None], atol=1e-6)
    assert ((y > 0).sum(axis=1) <= 2).all()
    own = y[np.arange(40), np.arange(40)]
    assert own.min() < 0.2
    assert own.max() > 0.8


def test_where_there_are_both_each_image_takes_one():
    x = np.broadcast_to((np.arange(600) % 2).astype(np.float32)[:, None, None, None], (600, 8, 8, 1))
    found, _ = prepared(x, Augment(mixup=1.0, cutmix=1.0), classes=600)(slice(0, 600))
    blended = ((found > 0) & (found < 1)).any(axis=(1, 2, 3))
    assert 0.42 < blended.mean() < 0.58


def test_images_of_the_same_class_keep_their_label():
    x = RNG.random((6, 4, 4, 1), np.float32)
    images = Images(x, np.full(6, 2))
    ((_, y),) = batches(images, 6, change=Augment(mixup=0.4), classes=3)
    assert np.allclose(y, [0, 0, 1])


# The whole


@given(
    st.sampled_from([*PRESETS]),
    st.integers(1, 7),
    st.integers(1, 9),
    st.sampled_from([1, 3]),
    st.booleans(),
    st.integers(0, 5),
)
@settings(deadline=None, max_examples=60)
def test_every_preset_takes_every_shape(name, height, width, channels, as_bytes, room):
    shape = (3, height + room, width + room, channels)
    x = RNG.integers(0, 256, shape, np.uint8) if as_bytes else RNG.random(shape, np.float32)
    found = all_of(x, PRESETS[name], size=(height, width), classes=3)
    assert (found.shape, found.dtype) == ((3, height, width, channels), np.float32)
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_pixels_of_any_number_of_channels_are_moved(channels):
    x = RNG.integers(0, 256, (4, 8, 8, channels), np.uint8)
    change = Augment(crop="random", flip="random", rotation=30)
    found = all_of(x, change)
    planes = [all_of(np.ascontiguousarray(x[..., c : c + 1]), change) for c in range(channels)]
    assert np.array_equal(found, np.concatenate(planes, axis=-1))


def test_one_more_change_leaves_the_others_alone():
    x = RNG.integers(0, 256, (30, 8, 8, 3), np.uint8)
    moved = all_of(x, Augment(crop="shift", flip="random"))
    assert np.array_equal(all_of(x, Augment(crop="shift", flip="random", brightness=1e-9)), moved)
    assert not np.array_equal(moved, all_of(x, Augment(crop="shift", flip="random"), seed=1))
    assert not np.array_equal(moved, all_of(x, Augment(crop="shift", flip="random"), epoch=2))


def test_an_image_by_itself_is_what_it_is_in_its_batch():
    x = RNG.integers(0, 256, (9, 8, 8, 3), np.uint8)
    images = Images(x, np.arange(9))
    prepare = Preparation(images, np.array([4, 8, 0, 2, 1, 7, 6, 3, 5]), 0, 3, PRESETS["strong"], classes=9)
    whole, _ = prepare(slice(0, 9))
    assert np.array_equal(prepare.of(2), whole[3])
    assert np.array_equal(prepare.of(5), whole[8])


# Choosing


def test_presets_go_to_json_and_back():
    for augment in [*PRESETS.values(), Augment.of("light,jitter.turn=5,mixup=0.3,ratio=1:1")]:
        assert Augment.from_dict(json.loads(json.dumps(augment.to_dict()))) == augment
        assert hash(augment) == hash(Augment.from_dict(augment.to_dict()))
    assert Augment.from_dict({"flip": "random", "jitter": {"turn": 3}}) == Augment(flip="random", jitter=Jitter(turn=3))


def test_an_augmentation_as_it_is_written_on_a_command_line():
    assert Augment.of("standard") is PRESETS["standard"]
    written = Augment.of("light, flip=alternating, vertical_flip=True, scale=0.5:1, randaugment=2, jitter.turn=5")
    assert written == Augment(
        crop="shift", flip="alternating", vertical_flip=True, scale=(0.5, 1), randaugment=2, jitter=Jitter(turn=5)
    )
    assert str(Augment()) == "no change"
    assert str(PRESETS["light"]) == "crop=shift, flip=random"


def test_what_an_augmentation_needs():
    assert [PRESETS[name].room for name in ("none", "light", "standard")] == [1, 1, pytest.approx(8 / 7)]
    assert [name for name in PRESETS if PRESETS[name].mixes] == ["strong"]


BAD = {
    "crop=left": r"unknown crop[\s\S]*'centre', 'shift', 'random'",
    "flip=2": r"unknown flip[\s\S]*'none', 'random', 'alternating'",
    "vertical_flip=1": r"bad vertical_flip[\s\S]*True or False",
    "scale=0.5": r"bad scale[\s\S]*scale=0\.5[\s\S]*two numbers above 0, the larger one last, at most 1",
    "scale=1:0.5": r"bad scale[\s\S]*the larger one last",
    "scale=0:1": r"bad scale",
    "scale=0.1:2": r"bad scale",
    "ratio=0:inf": r"bad ratio",
    "ratio=1:nan": r"bad ratio[\s\S]*two numbers above 0, the larger one last$",
    "scale=a:b": r"bad scale[\s\S]*'a:b'[\s\S]*numbers with a colon between",
    "shift=1.5": r"bad shift[\s\S]*from 0 to 1",
    "erasing=-1": r"bad erasing[\s\S]*from 0 to 1",
    "brightness=2": r"bad brightness[\s\S]*from 0 to 1",
    "hue=0.6": r"bad hue[\s\S]*from 0 to 0\.5",
    "rotation=200": r"bad rotation[\s\S]*from 0 to 180 degrees",
    "magnitude=31": r"bad magnitude[\s\S]*from 0 to 30",
    "randaugment=1.5": r"bad randaugment[\s\S]*a whole number",
    "mixup=-0.1": r"bad mixup[\s\S]*0 or more",
    "cutmix=much": r"bad cutmix[\s\S]*'much'",
    "jitter=5": r"bad jitter[\s\S]*a Jitter, as in Jitter\(turn=5\)",
    "rotation": r"bad change[\s\S]*'rotation'[\s\S]*NAME=VALUE[\s\S]*none,rotation=10",
}


@pytest.mark.parametrize("change", BAD)
def test_choices_out_of_range(change):
    with pytest.raises(ArgumentError, match=rf"augment: {BAD[change]}"):
        Augment.of(f"none,{change}")


def test_a_jitter_below_0():
    with pytest.raises(ArgumentError, match=r"jitter: bad turn[\s\S]*turn=-1[\s\S]*0 or more"):
        Augment.of("none,jitter.turn=-1")
    with pytest.raises(ArgumentError, match=r"jitter: bad zoom[\s\S]*zoom='big'"):
        Augment.of("none,jitter.zoom=big")


def test_names_that_are_none():
    with pytest.raises(UnknownNameError, match=r"no augmentation named 'standart'[\s\S]*did you mean 'standard'"):
        Augment.of("standart")
    with pytest.raises(UnknownNameError, match=r"no choice of Augment named 'rotate'[\s\S]*did you mean 'rotation'"):
        Augment.of("none,rotate=3")
    with pytest.raises(UnknownNameError, match=r"no choice of Jitter named 'turns'[\s\S]*did you mean 'turn'"):
        Augment.from_dict({"jitter": {"turns": 3}})
    with pytest.raises(UnknownNameError, match=r"no choice of Augment named 'shif"):
        Augment.from_dict({"shifts": 0.1})


def test_the_page_knows_every_choice():
    page = (Path(__file__).parents[2] / "docs" / "augmentation.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([A-Za-z_]+)`", page))
    assert named >= {*Augment.__dataclass_fields__, *PRESETS, *OPERATIONS, *Jitter.__dataclass_fields__}
