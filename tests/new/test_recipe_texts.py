"""Texts of the recommended experiments, by the number of images."""

import pytest
import yaml

from foldsmith.new.files import recipe_texts, recipe_texts_to_fill_in


@pytest.mark.parametrize("recipe", ["numbers", "classes", "labels"])
def test_many_images_have_fewer_features_of_a_kind(recipe):
    few, many = (
        yaml.safe_load(recipe_texts(recipe, "small", n_images)["exp_config/404.yml"])
        for n_images in (20_000, 20_001)
    )
    assert many == few | {"model/n_components": 16}


def test_files_to_fill_in_have_no_placeholder():
    for name, text in recipe_texts_to_fill_in().items():
        assert "$" not in text, name
        assert yaml.safe_load(text), name
