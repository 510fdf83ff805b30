"""Public datasets: downloaded from a server of the test's own, which fails in every way that servers do."""

import gzip
import hashlib
import http.server
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from juanji.cli import main
from juanji.data import PUBLIC, download, find, load, public
from juanji.data.arrays import CIFAR
from juanji.data.download import File, fetch
from juanji.errors import DataError

CONTENT = np.random.default_rng(0).bytes(700_000)
FILE = File("file.bin", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture(autouse=True)
def cache(own_cache, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 2.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return own_cache


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files`, by /MIRROR/NAME. What a mirror does wrong is in its name."""

    def do_GET(self):
        _, mirror, name = self.path.split("/")
        asked = self.headers.get("Range")
        self.server.asked.append((mirror, asked))
        content = self.server.files.get(name)
        if content is None or mirror == "gone":
            return self.send_error(404)
        if mirror == "broken":
            return self.send_error(503)
        if mirror == "other":
            content = bytes(len(content))
        if mirror == "longer":
            content = content + b"more"
        start = int(asked[6:-1]) if asked and mirror != "whole" else 0
        if mirror == "unsatisfied" and start:
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        # A connection that is cut after 300,000 bytes, each time.
        end = min(start + 300_000, len(content)) if mirror == "cut" else len(content)
        self.wfile.write(content[start:end])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.files, running.asked = {FILE.name: CONTENT}, []
        running.url = lambda *mirrors: [f"http://127.0.0.1:{running.server_port}/{mirror}/" for mirror in mirrors]
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def down():
    """A mirror that nobody answers at."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/"


def test_a_file_is_downloaded_whole(server, tmp_path):
    told = []
    path = fetch(FILE, server.url("good"), tmp_path, lambda *step: told.append(step))
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.bin"]
    assert told[-1] == ("downloading file.bin", 700_000, 700_000)


def test_a_connection_that_is_cut_is_gone_on_with(server, tmp_path):
    assert fetch(FILE, server.url("cut"), tmp_path).read_bytes() == CONTENT
    assert server.asked == [("cut", None), ("cut", "bytes=300000-"), ("cut", "bytes=600000-")]


def test_another_mirror_goes_on_too(server, tmp_path):
    assert fetch(FILE, server.url("cut", "good"), tmp_path).read_bytes() == CONTENT
    assert server.asked == [("cut", None), ("good", "bytes=300000-")]


def test_another_run_goes_on_too(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:500_000])
    assert fetch(FILE, server.url("good"), tmp_path).read_bytes() == CONTENT
    assert server.asked == [("good", "bytes=500000-")]
    # Even where only the renaming was missing.
    (tmp_path / "file.bin").rename(tmp_path / "file.bin.part")
    assert fetch(FILE, server.url("gone"), tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_one_at_a_time_loads_a_file_and_others_wait_for_it(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "WAIT", 0.01)
    begun, waiting, told = threading.Event(), threading.Event(), []

    def hold(*step):
        begun.set()
        assert waiting.wait(10)

    def tell(*step):
        told.append(step)
        waiting.set()

    with ThreadPoolExecutor() as pool:
        first = pool.submit(fetch, FILE, server.url("good"), tmp_path, hold)
        assert begun.wait(10)
        assert fetch(FILE, server.url("good"), tmp_path, tell).read_bytes() == CONTENT
        assert first.result().read_bytes() == CONTENT
    assert server.asked == [("good", None)]
    assert {what for what, _, _ in told} == {"waiting for another process that loads file.bin"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.bin"]


@pytest.mark.parametrize("mirror", ["whole", "unsatisfied"])
def test_servers_without_ranges_begin_again(server, tmp_path, mirror):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:500_000])
    assert fetch(FILE, server.url(mirror), tmp_path).read_bytes() == CONTENT


def test_mirrors_that_are_down_or_wrong_are_passed_over(server, tmp_path):
    mirrors = [down(), *server.url("gone", "broken", "other", "good")]
    assert fetch(FILE, mirrors, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("size", [500_000, 700_000, 800_000])
def test_a_damaged_beginning_is_thrown_away(server, tmp_path, size):
    (tmp_path / "file.bin.part").write_bytes(bytes(size))
    assert fetch(FILE, server.url("good"), tmp_path).read_bytes() == CONTENT


def test_a_server_that_falls_silent(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(DataError, match=r"cannot be downloaded[\s\S]*timed out"):
            fetch(FILE, [url], tmp_path)


def test_what_every_mirror_did_wrong_is_told(server, tmp_path):
    mirrors = [down(), *server.url("gone", "broken", "other")]
    with pytest.raises(
        DataError, match=r"file\.bin: the file cannot be downloaded[\s\S]*SHA-256[\s\S]*put the file"
    ) as error:
        fetch(FILE, mirrors, tmp_path)
    text = str(error.value)
    for mirror, reason in zip(mirrors, ("refused", "HTTP 404", "503", "another file: SHA-256"), strict=True):
        line = next(line for line in text.splitlines() if mirror in line)
        assert reason in line
    assert [entry.name for entry in tmp_path.iterdir()] == []
    # What is wrong for good is asked once, what may come back is asked again.
    assert [mirror for mirror, _ in server.asked].count("gone") == 1
    assert [mirror for mirror, _ in server.asked].count("broken") == download.TRIES


def test_more_than_was_promised_is_not_loaded(server, tmp_path):
    server.files["file.bin"] = CONTENT + bytes(5_000_000)
    with pytest.raises(DataError, match="another file"):
        fetch(replace(FILE, sha256="0" * 64), server.url("longer"), tmp_path)


def test_folders_that_cannot_be_written(server, tmp_path):
    with pytest.raises(DataError, match=r"file\.bin\.part: the file cannot be written"):
        fetch(FILE, server.url("good"), tmp_path / "gone")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"the folder cannot be made"):
        public.public("mnist", tmp_path / "file")


# The datasets.


def idx(values):
    return bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def small_mnist():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 28, 28)).astype(np.uint8)
    labels = (np.arange(30) % 10).astype(np.uint8)
    return {
        "train-images-idx3-ubyte.gz": gzip.compress(idx(images[:20])),
        "train-labels-idx1-ubyte.gz": gzip.compress(idx(labels[:20])),
        "t10k-images-idx3-ubyte.gz": gzip.compress(idx(images[20:])),
        "t10k-labels-idx1-ubyte.gz": gzip.compress(idx(labels[20:])),
    }


@pytest.fixture
def offered(server, monkeypatch):
    """A dataset like MNIST, offered by the test's server under that name."""
    server.files = small_mnist()
    files = tuple(File(name, len(x), hashlib.sha256(x).hexdigest()) for name, x in server.files.items())
    for name in ("mnist", "fashion-mnist"):
        monkeypatch.setitem(PUBLIC, name, replace(PUBLIC[name], files=files, mirrors=tuple(server.url("good"))))
    return server


def test_a_name_is_downloaded_once_and_only_when_it_is_said(offered, cache, capsys):
    assert load("digits").train.x.size
    assert offered.asked == []
    data = load("mnist", 32)
    assert (data.train.x.shape, data.test.x.shape) == ((20, 32, 32, 1), (10, 32, 32, 1))
    assert data.name == "mnist"
    assert len(offered.asked) == 4
    assert find("mnist").classes == tuple("0123456789")
    assert len(offered.asked) == 4
    with pytest.raises(SystemExit):
        main(["cache"])
    assert f"{cache / 'datasets'}: 4 files of datasets" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["cache", "--clear"])
    assert public.entries() == []


def test_classes_have_their_published_names(offered):
    assert load("fashion-mnist").classes[9] == "Ankle boot"


@pytest.mark.parametrize("folder", [".", "mnist", "MNIST/raw"])
@pytest.mark.parametrize("packed", [True, False])
def test_files_that_are_there_are_not_downloaded(offered, tmp_path, folder, packed):
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for name, content in offered.files.items():
        path = tmp_path / folder / name
        path.write_bytes(content) if packed else path.with_suffix("").write_bytes(gzip.decompress(content))
    assert len(load("mnist", data_dir=tmp_path).train) == 20
    assert offered.asked == []


def test_what_is_missing_is_downloaded_beside_it(offered, tmp_path):
    (tmp_path / "mnist").mkdir()
    first, *_ = offered.files
    (tmp_path / "mnist" / first).write_bytes(offered.files[first])
    assert len(load("mnist", data_dir=tmp_path).train) == 20
    assert len(offered.asked) == 3
    assert len(list((tmp_path / "mnist").iterdir())) == 4


def test_cifar_unpacked_by_others_is_read(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for i, name in enumerate(CIFAR):
        (folder / name).write_bytes(b"".join(bytes([label]) + bytes([i + 6 * label]) * 3072 for label in range(10)))
    data = load("cifar10", data_dir=tmp_path)
    assert (data.train.x.shape, data.test.x.shape) == ((50, 32, 32, 3), (10, 32, 32, 3))
    assert data.classes[0] == "airplane"


def test_every_public_file_has_a_digest_and_a_safe_place():
    for name, wanted in PUBLIC.items():
        assert len(wanted.classes) == 10, name
        assert len(wanted.mirrors) > 1
        for file in wanted.files:
            assert len(bytes.fromhex(file.sha256)) == 32
            assert file.size > 1000
