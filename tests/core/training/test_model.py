"""A model in use: what its recipes see, and what `fit` refuses before any work."""

import pytest

from sciforge.core.domain import FitRecipe
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError
from sciforge.genomes import DOMAIN


@pytest.fixture
def counts(monkeypatch) -> list[int]:
    """The numbers of training records that the only recipe was asked for."""

    def settings(store, parent, count):
        counts.append(count)
        raise KeyError("stops before training")

    class Own(type(DOMAIN.inputs)):
        recipes = {"first": FitRecipe("a test", settings)}

    counts: list[int] = []
    monkeypatch.setitem(vars(DOMAIN), "inputs", Own())
    return counts


def test_a_recipe_sees_how_many_labels_are_used(tiny, counts):
    model = Model.load(tiny.checkpoint.path, "cpu")
    for labels in (5, None):
        with pytest.raises(KeyError):
            model.fit(tiny.labelled, labels=labels, verbose=False)
    with pytest.raises(KeyError):
        model.recommended(tiny.labelled)
    whole = len(tiny.labelled.split("train"))
    assert counts == [5, whole, whole]
    with pytest.raises(ConfigError, match="no recipe 'frist' in genomes; did you mean 'first'"):
        model.fit(tiny.labelled, recipe="frist")
