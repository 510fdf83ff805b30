"""`ImageClassifier` by scikit-learn's own checks of estimators, inside its tools, and on images in every form."""

import pickle
import pickletools
import subprocess
import sys

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import juanji as jj
from juanji.data import Jitter, digits
from juanji.errors import ArgumentError, DataError, ShapeError, UnknownNameError
from juanji.train.estimator import shape_of

X, Y = load_digits(return_X_y=True)
X, Y = X[:400], Y[:400]
QUICK = {"model": "perceptron", "options": {"hidden": (32,)}, "lr": 0.03, "warmup": 0.0, "batch": 32, "random_state": 0}


def quick(**options):
    return jj.ImageClassifier(**{**QUICK, "epochs": 8, **options})


@parametrize_with_checks([quick(epochs=5)])
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


# In scikit-learn's tools


def test_cross_validation_and_search():
    assert cross_val_score(quick(), X, Y, cv=3).mean() > 0.75
    search = GridSearchCV(quick(epochs=2), {"lr": [1e-5, 0.03], "augment": [None, Jitter(shift=0.1)]}, cv=2)
    search.fit(X, Y)
    assert search.best_params_["lr"] == 0.03
    assert search.best_estimator_.score(X, Y) > 0.6


def test_pipeline_clone_and_scaling():
    pipeline = make_pipeline(MinMaxScaler(), quick()).fit(X[:300], Y[:300])
    assert pipeline.score(X[300:], Y[300:]) > 0.7
    alone = clone(pipeline[-1])
    assert not hasattr(alone, "model_")
    assert alone.get_params() == pipeline[-1].get_params()
    assert "image_size" in alone.get_params()


def test_joblib_keeps_the_network(tmp_path):
    fitted = quick(epochs=2).fit(X, Y)
    joblib.dump(fitted, tmp_path / "model.joblib")
    loaded = joblib.load(tmp_path / "model.joblib")
    assert (loaded.predict_proba(X) == fitted.predict_proba(X)).all()
    assert loaded.history_ == fitted.history_


def test_a_pickle_holds_nothing_but_configuration_and_arrays():
    names = {
        f"{arg}" for op, arg, _ in pickletools.genops(pickle.dumps(quick().partial_fit(X, Y), 2)) if op.name == "GLOBAL"
    }
    ours = {name for name in names if "numpy" not in name and "copy" not in name}
    assert ours == {
        "juanji.train.estimator ImageClassifier",
        "juanji.train.estimator Reading",
        "juanji.data.preprocessing Preprocessing",
        "_codecs encode",
    }


def test_partial_fit_goes_on_where_it_was():
    straight = quick()
    for _ in range(3):
        straight.partial_fit(X, Y)
    resumed = quick().partial_fit(X, Y)
    for _ in range(2):
        resumed = pickle.loads(pickle.dumps(resumed)).partial_fit(X, Y)
    assert (resumed.predict_proba(X) == straight.predict_proba(X)).all()
    assert resumed.n_iter_ == 3
    assert resumed.score(X, Y) > 0.8
    assert quick().partial_fit(X, Y).fit(X, Y).partial_fit(X, Y).n_iter_ == 1  # begins anew


def test_classes_that_come_later():
    few = Y < 5
    model = quick().partial_fit(X[few], Y[few], classes=range(10))
    for _ in range(4):
        model.partial_fit(X, Y)
    assert model.score(X, Y) > 0.8
    with pytest.raises(DataError, match=r"labels that are no classes\n  received  7, 9\n[\s\S]*classes=\[…\]"):
        quick().partial_fit(X[few], Y[few]).partial_fit(X[Y > 5], np.where(Y[Y > 5] > 7, 9, 7))


def test_the_same_random_state_gives_the_same_bits():
    one, same, other = (quick(epochs=1, random_state=seed).fit(X, Y).predict_proba(X) for seed in (3, 3, 4))
    assert (one == same).all()
    assert not (one == other).all()
    state = np.random.RandomState(0)
    first, second = (quick(epochs=1, random_state=state).fit(X, Y).predict_proba(X) for _ in range(2))
    assert not (first == second).all()  # as everywhere in scikit-learn, a RandomState goes on


# Labels


@pytest.mark.parametrize("names", [list("零一二三四五六七八九"), range(90, 100), "abcdefghij"])
def test_any_labels(names):
    labels = np.array(list(names))[Y]
    fitted = quick().fit(X, labels)
    assert fitted.classes_.tolist() == sorted(names)
    assert set(fitted.predict(X)) <= set(names)
    assert fitted.score(X, labels) > 0.8


def test_two_classes_of_truth():
    fitted = quick().fit(X, Y > 4)
    assert fitted.classes_.tolist() == [False, True]
    assert fitted.score(X, Y > 4) > 0.8


def test_class_weights():
    rare = (Y == 8) & (np.arange(len(Y)) % 4 > 0)
    x, y = X[~rare], (Y == 8)[~rare]
    said = {weight: quick(epochs=2, class_weight=weight).fit(x, y).predict(X).sum() for weight in (None, "balanced")}
    assert said["balanced"] > said[None]
    heavy = quick(epochs=2, class_weight={False: 1e-4, True: 1.0}).fit(x, y)
    assert heavy.predict(X).mean() > 0.5
    again = pickle.loads(pickle.dumps(quick(class_weight="balanced").partial_fit(x, y)))
    straight = quick(class_weight="balanced").partial_fit(x, y).partial_fit(x, y)
    assert (again.partial_fit(x, y).predict_proba(X) == straight.predict_proba(X)).all()
    with pytest.raises(DataError, match=r"not come yet\n  received  class_weight='balanced', no image of 8, 9\n"):
        quick(class_weight="balanced").partial_fit(X[Y < 8], Y[Y < 8], classes=range(10))


def test_classes_of_weight_0_are_not_learnt_from():
    fitted = quick(batch=4, class_weight={8: 0.0}).fit(X, Y)
    assert not (fitted.predict(X) == 8).any()
    assert fitted.score(X[Y != 8], Y[Y != 8]) > 0.8


# Images


def test_rows_images_and_channels_are_the_same_images():
    said = [quick(epochs=1).fit(x, Y).predict_proba(x) for x in (X, X.reshape(-1, 8, 8), X.reshape(-1, 8, 8, 1))]
    assert (said[0] == said[1]).all()
    assert (said[0] == said[2]).all()
    fitted = quick(epochs=1).fit(X.reshape(-1, 8, 8), Y)
    assert fitted.n_features_in_ == 64
    assert (fitted.predict_proba(X) == said[0]).all()


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float32, np.float64])
def test_numbers_of_any_kind(kind):
    x = (X * 15).astype(kind)
    fitted = quick().fit(x, Y)
    assert fitted.score(x, Y) > 0.8
    assert fitted.preprocessing_.mean[0] == pytest.approx(x.mean() / (255 if kind == np.uint8 else x.max()), abs=1e-3)
    np.testing.assert_allclose(fitted.predict_proba(x.astype(np.float64)), fitted.predict_proba(x), atol=1e-5)


def test_images_in_0_to_1_are_taken_as_they_are():
    fitted = quick(epochs=1).fit(X / 32, Y)
    assert fitted.preprocessing_.mean[0] == pytest.approx((X / 32).mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("features", "given", "shape"),
    [
        (64, None, (8, 8, 1)),
        (48, None, (4, 4, 3)),
        (20, None, (1, 20, 1)),
        (20, (4, 5), (4, 5, 1)),
        (20, (4, -1), (4, 5, 1)),
        (60, (4, 5, 3), (4, 5, 3)),
        (60, (-1, 5, 3), (4, 5, 3)),
    ],
)
def test_what_rows_of_features_are(features, given, shape):
    assert shape_of(features, given) == shape


@settings(deadline=None)
@given(st.integers(1, 5000))
def test_rows_of_any_length_are_images(features):
    height, width, channels = shape_of(features, None)
    assert height * width * channels == features
    assert height in (1, width)


def test_small_images_are_enlarged():
    with pytest.raises(ShapeError, match=r"too small[\s\S]*at least 12×12[\s\S]*fix       image_size=12 or more"):
        jj.ImageClassifier("lenet5").fit(X, Y)
    fitted = jj.ImageClassifier("lenet5", options={"width": 0.5}, epochs=5, batch=16, image_size=12, random_state=0)
    fitted.fit(X, Y)
    assert fitted.model_.config["input_size"] == (12, 12)
    assert fitted.score(X, Y) > 0.7
    assert [row.epoch for row in fitted.history_] == [1, 2, 3, 4, 5]


@pytest.fixture
def files(tmp_path):
    """Digits as image files, grey and on colour, and what they show."""
    data = digits(size=28).test
    paths = {"L": [], "RGB": []}
    for i, x in enumerate(data.x[:120]):
        for mode in paths:
            path = tmp_path / f"{mode}-{i}.png"
            Image.fromarray((x[..., 0] * 255).astype(np.uint8)).convert(mode).save(path)
            paths[mode].append(str(path))
    return paths, data.y[:120]


def test_paths_of_image_files(files):
    paths, y = files
    fitted = quick(image_size=(14, 14)).fit(paths["L"], y)
    assert fitted.preprocessing_.channels == 1
    assert fitted.n_features_in_ == 14 * 14
    assert fitted.score(paths["L"], y) > 0.8
    assert (fitted.predict(paths["RGB"]) == fitted.predict(paths["L"])).all()  # there is no colour in them
    assert cross_val_score(quick(image_size=14), np.array(paths["L"]), y, cv=2).mean() > 0.4
    with Image.open(paths["RGB"][0]) as image:
        red = image.copy()
    red.putpixel((0, 0), (255, 0, 0))
    red.save(paths["RGB"][0])
    coloured = quick(epochs=1, image_size=14).partial_fit(paths["RGB"], y)
    assert coloured.preprocessing_.channels == 3
    assert coloured.partial_fit(paths["L"], y).n_iter_ == 2
    assert quick(epochs=1).fit(paths["L"], y).model_.config["input_size"] == (28, 28)  # the network's own


def test_files_that_cannot_be_read_are_named(files):
    paths, y = files
    with open(paths["L"][3], "wb"):
        pass
    with pytest.raises(DataError, match=r"L-3\.png: the image cannot be read"):
        quick().fit(paths["L"], y)


# Mistakes


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"model": "lenet6"}, UnknownNameError, "did you mean 'lenet5'"),
        ({"optimizer": "sdg"}, UnknownNameError, "did you mean 'sgd'"),
        ({"epochs": 0}, ArgumentError, "training: bad epochs"),
        ({"options": {"depth": 3}}, ArgumentError, "no such option"),
        ({"image_size": (8,)}, ArgumentError, "ImageClassifier: bad image_size"),
        ({"image_shape": (7, 9)}, ArgumentError, r"bad image_shape\n  received  image_shape=\(7, 9\), 64 features"),
        ({"image_shape": (64,)}, ArgumentError, "bad image_shape"),
    ],
)
def test_bad_choices(options, error, text):
    with pytest.raises(error, match=text):
        quick(**options).fit(X, Y)


def test_images_of_another_shape():
    fitted = quick(epochs=1).fit(X.reshape(-1, 8, 8), Y)
    with pytest.raises(ShapeError, match=r"not of the shape[\s\S]*\(H=4, W=16, C=1\)\n  rule      \(H=8, W=8, C=1\)"):
        fitted.predict(X.reshape(-1, 4, 16))
    with pytest.raises(ValueError, match="X has 16 features, but ImageClassifier is expecting 64"):
        fitted.predict(X.reshape(-1, 4, 4))
    with pytest.raises(DataError, match=r"there is only 1 class\n  received  3"):
        quick().fit(X, np.full(len(X), 3))


def test_a_line_for_each_epoch(capsys):
    quick(epochs=2, verbose=1).fit(X, Y)
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["1/2", "2/2"]


def test_without_scikit_learn():
    code = (
        "import sys; sys.modules['sklearn.base'] = None; import juanji as jj\n"
        "try: jj.ImageClassifier\nexcept jj.errors.ArgumentError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[0] == "ImageClassifier needs the package scikit-learn, 1.6 or newer"
    assert "pip install scikit-learn" in result.stdout


def test_scikit_learn_is_imported_when_it_is_asked_for():
    there = "print('sklearn' in sys.modules)"
    code = f"import sys, juanji as jj; jj.train; {there}; jj.ImageClassifier; {there}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "True"]
