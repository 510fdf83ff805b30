"""What unit tests share."""

import pytest


@pytest.fixture
def own_cache(tmp_path_factory, monkeypatch):
    """A cache folder of the test's own, empty at first."""
    place = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("JUANJI_CACHE", str(place))
    return place
