import pytest
from hypothesis import given
from hypothesis import strategies as st
from imageclust.errors import InvalidInput
from imageclust.labels.request import LabelRequest
from imageclust.models import RunConfig


@given(
    st.sampled_from(["auto", "rekognition", "mobilenet_v2_1.0_224_w8"]),
    st.none() | st.floats(0, 100).map(lambda value: float(f"{value:g}")),
    st.none() | st.integers(1, 1000),
    st.booleans(),
    st.booleans(),
)
def test_a_request_comes_back_as_it_was(
    name: str, floor: float | None, most: int | None, properties: bool, moderation: bool
) -> None:
    request = LabelRequest(name, floor, most, properties, moderation)
    assert LabelRequest.parse(str(request)) == request


def test_a_plain_request_is_the_name() -> None:
    assert str(LabelRequest.of(RunConfig(labeler="rekognition"))) == "rekognition"
    asked = RunConfig(labeler="a", label_min_confidence=70, max_labels=5, moderation="on")
    assert str(LabelRequest.of(asked)) == "a?c=70&n=5&moderation"


@pytest.mark.parametrize("text", ["a?x=1", "a?c=high", "a?n=1.5"])
def test_what_is_no_request(text: str) -> None:
    with pytest.raises(InvalidInput, match="no request of labels"):
        LabelRequest.parse(text)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"moderation": "on", "labels": "exemplars"}, "needs labels 'full'"),
        ({"moderation": "on", "labels": "off"}, "needs labels 'full'"),
        ({"image_properties": "on", "labels": "off"}, "must not be 'off'"),
        ({"label_min_confidence": 101}, "between 0 and 100"),
        ({"max_labels": 0}, "at least 1"),
        ({"moderation": True}, "must be one of off, on"),
    ],
)
def test_what_cannot_be_asked_for(config: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        RunConfig.from_json(config)
