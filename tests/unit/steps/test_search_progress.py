import pytest
from imageclust.steps.search_progress import SearchProgress
from imageclust.wiring import Services


def parts(services: Services) -> list[str]:
    return [item.uri for item in services.store.list("data", "clusters/progress/")]


def test_what_was_tried_is_there_for_the_next(services: Services) -> None:
    now = [0.0]
    first = SearchProgress(services.store, "data", "aa", clock=lambda: now[0])
    first["a/kmeans-2"] = b"one"
    assert parts(services) == [], "a short search writes nothing"
    now[0] = 11.0
    first["a/ward-2"] = b"two"
    now[0] = 12.0
    first["a/gmm-2"] = b"three"
    assert len(parts(services)) == 1
    killed = SearchProgress(services.store, "data", "aa")
    assert dict(killed) == {"a/kmeans-2": b"one", "a/ward-2": b"two"}
    killed["a/gmm-2"] = b"three again"
    killed.flush()
    killed.flush()
    assert len(parts(services)) == 2
    third = SearchProgress(services.store, "data", "aa")
    assert dict(third) == {**killed}
    assert dict(SearchProgress(services.store, "data", "ab")) == {}
    third.forget()
    assert parts(services) == []


def test_what_was_tried_stays_tried(services: Services) -> None:
    progress = SearchProgress(services.store, "data", "aa")
    progress["a"] = b""
    with pytest.raises(TypeError):
        del progress["a"]
