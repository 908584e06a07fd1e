import json

import pytest
from imageclust.errors import InvalidInput
from imageclust.labels import Label

COUCH = Label("Couch", 87.25, ("Sofa", "Furniture"), ("Furniture and Furnishings",))


def test_label_has_the_shape_of_a_rekognition_label():
    assert COUCH.to_json() == {
        "Name": "Couch",
        "Confidence": 87.25,
        "Parents": [{"Name": "Sofa"}, {"Name": "Furniture"}],
        "Categories": [{"Name": "Furniture and Furnishings"}],
    }


def test_label_survives_json():
    assert Label.from_json(json.loads(json.dumps(COUCH.to_json()))) == COUCH


def test_label_reads_a_real_answer_and_ignores_the_rest_of_it():
    answer = {
        "Name": "Mobile Phone",
        "Confidence": 99.9364,
        "Instances": [{"BoundingBox": {"Width": 0.3}, "Confidence": 99.9}],
        "Parents": [{"Name": "Phone"}],
        "Aliases": [{"Name": "Cell Phone"}],
        "Categories": [{"Name": "Technology and Computing"}],
    }
    label = Label.from_json(answer)
    assert label.name == "Mobile Phone"
    assert label.parents == ("Phone",)
    assert label.categories == ("Technology and Computing",)


@pytest.mark.parametrize("confidence", [-0.1, 100.1, float("nan")])
def test_confidence_is_a_percentage(confidence):
    with pytest.raises(InvalidInput, match="between 0 and 100"):
        Label("Couch", confidence)


def test_a_label_needs_a_name():
    with pytest.raises(InvalidInput, match="needs a name"):
        Label("", 50.0)
