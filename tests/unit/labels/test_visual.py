import pytest
from imageclust.labels import visual_attributes
from imageclust.labels.visual import VISUAL_CATEGORY, colour_name


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((0, 0, 0), "Black"),
        ((255, 255, 255), "White"),
        ((128, 128, 128), "Grey"),
        ((255, 0, 0), "Red"),
        ((0, 255, 0), "Green"),
        ((0, 0, 255), "Blue"),
        ((255, 255, 0), "Yellow"),
        ((255, 165, 0), "Orange"),
        ((128, 0, 128), "Purple"),
        ((255, 192, 203), "Pink"),
        ((0, 128, 128), "Teal"),
        ((139, 69, 19), "Brown"),
        ((245, 222, 179), "Beige"),
        ((135, 206, 235), "Blue"),
        ((34, 139, 34), "Green"),
    ],
)
def test_colours_are_called_what_people_call_them(rgb, name):
    assert colour_name(*rgb) == name


def test_shades_of_one_name_add_up_and_small_areas_are_left_out():
    labels = visual_attributes(
        [(0, 0, 255, 0.4), (20, 40, 110, 0.3), (255, 0, 0, 0.25), (0, 160, 0, 0.05)]
    )
    assert [(label.name, round(label.confidence)) for label in labels] == [
        ("Blue", 70),
        ("Red", 25),
    ]
    assert all(label.parents == ("Colour",) for label in labels)


def test_words_become_measured_labels_named_as_attributes():
    labels = visual_attributes([], ["portrait", "dark", "vertical lines", "dark"])
    assert [(label.name, label.parents) for label in labels] == [
        ("Portrait format", ("Orientation",)),
        ("Dark", ("Brightness",)),
        ("Vertical lines", ("Texture",)),
    ]
    assert all(label.categories == (VISUAL_CATEGORY,) for label in labels)
    assert all(label.confidence == 100 for label in labels)


def test_nothing_known_gives_nothing():
    assert visual_attributes([], []) == ()


def test_the_order_of_the_colours_does_not_matter():
    colours = [(0, 0, 255, 0.5), (255, 0, 0, 0.5)]
    assert visual_attributes(colours) == visual_attributes(colours[::-1])
