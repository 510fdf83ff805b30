"""juanji evaluate: what it prints and draws, of which images, and how it fails."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from juanji import nn
from juanji.cli import main
from juanji.cli.evaluate import report
from juanji.data import PRESETS, Dataset, Images, Preprocessing
from juanji.data.builtin import BUILT_IN
from juanji.table import aligned, width
from juanji.train import Config, Recipe, evaluate_images, load_run, pictures, save_run
from juanji.train.evaluation import Evaluation, answers

CLASSES = ("猫", "dog", "owl")


def images(seed, n=40):
    """Images whose first pixels are likely to tell the class."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    x = rng.random((n, 4, 4, 1)).astype(np.float32)
    x[np.arange(n), 0, y, 0] = 0.8
    return Images(x, y)


def net(name, **options):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    model[1].weight = np.eye(3, 16, dtype=np.float32) * 4
    model.config = {"name": name, **options}
    return model


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run folder on data that exist only here: three parts, and the same classes in another order."""
    monkeypatch.chdir(tmp_path)
    data = Dataset("pets", images(0), images(1, 30), CLASSES, images(2, 20))
    turned = Dataset("turned", data.train, Images(data.test.x, (data.test.y + 1) % 3), ("owl", "猫", "dog"))
    wild = Dataset("wild", data.train, data.test, ("猫", "wolf", "owl"))
    for dataset in (data, turned, wild, Dataset("untested", data.train, data.test[:0], CLASSES)):
        monkeypatch.setitem(BUILT_IN, dataset.name, lambda size=4, dataset=dataset: dataset)
    monkeypatch.setattr("juanji.models.create", net)
    path = tmp_path / "run"
    path.mkdir()
    config = Config({"name": "net"}, "pets", CLASSES, Preprocessing((4, 4), 1, (0.5,), (0.25,)), Recipe())
    save_run(path, config, net("net"), (), {})
    return path, data


def test_names_that_would_tear_a_table(run):
    path, data = run
    loaded = load_run(path)
    result = evaluate_images(loaded.model, data.test, loaded.config.preprocessing)
    lines = "\n\n".join(report(result, ("two\nlines", "tab\t", "\x1b[31mred"), "test of pets")).splitlines()
    assert sum(line.startswith(r"two\nlines ") for line in lines) == 2
    assert sum(line.startswith(r"\x1b[31mred ") for line in lines) == 2


def call(capsys, *arguments):
    """Exit code, output and error output of `juanji evaluate ARGUMENTS`."""
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", *map(str, arguments)])
    return (ended.value.code, *capsys.readouterr())


def as_json(capsys, *arguments):
    code, output, errors = call(capsys, *arguments, "--json")
    assert (code, errors) == (0, "")
    return json.loads(output)


def test_what_is_printed(run, capsys):
    path, data = run
    result = evaluate_images(load_run(path).model, data.test, load_run(path).config.preprocessing)
    code, output, _ = call(capsys, path)
    assert code == 0
    assert output.startswith(f"accuracy {result.accuracy:.2%}, loss {result.loss:.4f} on 30 images\n")
    assert f"balanced accuracy             {result.balanced_accuracy:.2%}\n" in output
    low, high = result.accuracy_interval
    assert f"95% interval of the accuracy  {low:.1%} to {high:.1%}\n" in output
    assert "top-5" not in output
    assert (
        f"猫{result.support[0]:>11} {result.precision[0]:>10.1%} {result.recall[0]:>7.1%} {result.f1[0]:>6.3f}"
        in output
    )
    first = result.mistakes()[0]
    assert f"pets[{40 + 20 + first}] " in output
    assert "judged on                     test of pets\n" in output
    named = f"pictures: {path / 'confusion.png'}, {path / 'reliability.png'}, {path / 'mistakes.png'}\n"
    renamed = (
        "in the pictures class 0 is 猫: no font here can write that; with Noto Sans CJK installed Chinese is drawn\n"
    )
    assert output.endswith(named if pictures.legible("猫") else named + renamed)
    assert all((path / f"{name}.png").stat().st_size for name in ("confusion", "reliability", "mistakes"))


def test_json_is_the_evaluation(run, capsys):
    path, data = run
    values = as_json(capsys, path)
    result = evaluate_images(load_run(path).model, data.test, load_run(path).config.preprocessing)
    for mistake in values["mistakes"]:
        assert mistake.pop("image") == f"pets[{60 + mistake['index']}]"  # of all parts, one after the other
    expected = {"run": str(path), "data": "pets", "part": "test", "tta": "none", **result.to_dict(CLASSES)}
    assert [mistake.pop("image") for mistake in expected["mistakes"]] == [f"image {i}" for i in result.mistakes()]
    assert values == expected
    assert not list(path.glob("*.png"))


def test_views_are_averaged(run, capsys):
    path, data = run
    mirrored = load_run(path).viewed("mirror")
    result = evaluate_images(mirrored.asked, data.test, mirrored.config.preprocessing)
    values = as_json(capsys, path, "--tta", "mirror")
    assert (values["loss"], values["tta"]) == (result.loss, "mirror")
    assert values["loss"] != as_json(capsys, path)["loss"]
    _, output, _ = call(capsys, path, "--tta", "mirror")
    assert "judged on                     test of pets, averaged over views: mirror\n" in output
    code, _, errors = call(capsys, path, "--tta", "none of them")
    assert (code, "no tta named" in errors) == (2, True)


def test_pictures_go_where_they_are_told(run, capsys, tmp_path):
    as_json(capsys, run[0], "--out", tmp_path / "a" / "b")
    assert len(list((tmp_path / "a" / "b").glob("*.png"))) == 3
    (tmp_path / "file").touch()
    code, _, errors = call(capsys, run[0], "--out", tmp_path / "file")
    assert (code, "file: the folder cannot be made" in errors, "--out FOLDER" in errors) == (2, True, True)


def test_parts(run, capsys):
    path, _ = run
    counts = {part: as_json(capsys, path, "--part", part)["images"] for part in ("train", "val", "test", "all")}
    assert counts == {"train": 40, "val": 20, "test": 30, "all": 90}
    code, _, errors = call(capsys, path, "untested")
    assert code == 2
    assert "untested: there are no images in the part 'test'\n  received  40 in train\n" in errors
    assert "fix       --part train or all" in errors
    code, _, errors = call(capsys, path, "--part", "tset")
    assert (code, "there is no part named 'tset'" in errors, "did you mean 'test'" in errors) == (2, True, True)


def test_classes_are_matched_by_name(run, capsys):
    path, _ = run
    ours, other = as_json(capsys, path), as_json(capsys, path, "turned")
    assert (other["confusion"], other["data"]) == (ours["confusion"], "turned")
    code, _, errors = call(capsys, path, "wild")
    assert code == 2
    assert "wild: the network was not trained on all of these classes\n  received  猫, wolf, owl" in errors
    assert "rule      the run's, or some of them: 猫, dog, owl\n  fix       rename or take away wolf" in errors


def folder(path, *names):
    """Different grey images by their names; the first pixels tell the class, but of those called wrong."""
    for number, name in enumerate(names):
        x = np.zeros((4, 4), np.uint8)
        x[0, (CLASSES.index(name.split("/")[-2]) + ("wrong" in name)) % 3], x[3, 3] = 255, number
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x).save(path / name)
    return path


def test_all_of_a_folder_of_new_images_is_judged(run, capsys, tmp_path):
    """Though a class is missing; mistakes are told by their files, some images only where that is asked for."""
    new = folder(tmp_path / "new", *(f"猫/{i}.png" for i in range(5)), "dog/0.png", "dog/a wrong one.png")
    values = as_json(capsys, run[0], new)
    assert (values["part"], values["images"], values["accuracy"]) == ("all", 7, 6 / 7)
    assert values["classes"]["owl"]["recall"] is None
    assert [mistake["image"] for mistake in values["mistakes"]] == [str(new / "dog" / "a wrong one.png")]
    code, output, _ = call(capsys, run[0], new, "--out", tmp_path / "drawn")
    assert (code, f"judged on                     all of {new}; if it learnt from some" in output) == (0, True)
    assert str(new / "dog" / "a wrong one.png") in output
    assert as_json(capsys, run[0], new, "--part", "test")["images"] == 2
    (new / "dog" / "0.png").write_bytes(b"no image")
    code, _, errors = call(capsys, run[0], new)
    assert (code, "--skip-unreadable" in errors) == (2, True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert as_json(capsys, run[0], new, "--skip-unreadable")["images"] == 6


def test_data_to_test_on_only(run, capsys, tmp_path):
    new = folder(tmp_path / "new", *(f"test/{name}/1.png" for name in CLASSES))
    values = as_json(capsys, run[0], new)
    assert (values["part"], values["images"], values["accuracy"]) == ("test", 3, 1)
    code, _, errors = call(capsys, run[0], new, "--part", "train")
    assert (code, "there are no images in the part 'train'\n  received  3 in test" in errors) == (2, True)


def test_the_data_of_the_run_are_never_judged_whole_by_themselves(run, capsys, tmp_path):
    """However they are named; and their training part is as large as the network's images, though stored larger."""
    path, _ = run
    own = folder(tmp_path / "own", *(f"{name}/{i}{'wrong' * (i < 2)}.png" for name in CLASSES for i in range(10)))
    config = replace(load_run(path).config, data=str(own.resolve()), recipe=Recipe(augment=PRESETS["standard"]))
    save_run(path, config, net("net"), (), {})
    for data in ([], ["own"], [own]):
        values = as_json(capsys, path, *data)
        assert (values["part"], values["data"]) == ("test", str(data[0]) if data else config.data)
        assert values["images"] == 6
    counts = {part: as_json(capsys, path, "--part", part)["images"] for part in ("train", "test", "all")}
    assert (counts["train"] + counts["test"], counts["all"]) == (30, 30)
    assert counts["train"] == 24


# Many classes, and none wrong.


def printed(classes, scores, y):
    result = Evaluation(classes, *answers(scores, y))
    return "\n\n".join(report(result, [f"class-{i:03}" for i in range(classes)], "test of many"))


def test_many_classes_are_told_by_the_worst(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    y = np.repeat(np.arange(100), 3)
    scores = 9.0 * np.eye(100)[y]
    scores[30:32, 7] = 20  # class 10 taken for 7, twice
    text = printed(100, scores, y)
    assert "class (30 with the lowest F1)  images" in text
    assert "class-010                           3     100.0%   33.3%  0.500\nclass-007" in text
    assert "true       taken for  images\nclass-010  class-007       2\n" in text
    assert "top-5 accuracy                100.00%" in text
    assert max(map(len, text.splitlines())) <= 100


def test_no_mistakes_and_no_images_of_a_class():
    text = printed(3, 9.0 * np.eye(3)[:2], np.arange(2))
    assert "mistakes" not in text
    assert "class-002       0          –       –      –" in text


def test_columns_of_chinese_end_together():
    lines = aligned([("名字", "x"), ("a", "yy")], right=[1])
    assert lines == ["名字   x", "a     yy"]
    assert [width(line) for line in lines] == [8, 8]
    assert width("é") == 1
