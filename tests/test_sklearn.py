"""The estimators keep scikit-learn's contract where inputs are not numbers: each test names the
check it stands for.

`check_estimator` feeds arrays of floats, which no domain takes, and skips estimators whose tags say
that inputs are text; its checks that apply are written out here.
"""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import (
    check_do_not_raise_errors_in_init_or_set_params,
    check_estimator_cloneable,
    check_estimator_repr,
    check_get_params_invariance,
    check_mixin_order,
    check_no_attributes_set_in_init,
    check_parameters_default_constructible,
    check_set_params,
    check_valid_tag_types,
)

import sciforge as sf
from sciforge.sklearn import PretrainedClassifier, PretrainedRegressor

ESTIMATORS = (PretrainedClassifier, PretrainedRegressor)
QUICK = {"schedule": sf.Schedule(steps=2, batch=16, lr=1e-4, kind="step")}


@pytest.fixture(scope="module")
def sequences() -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(0)
    X = [
        "".join(rng.choice(list("ACGT"), 48)) + ("GGGGGGCC" if i % 2 else "TATAAATA")
        for i in range(24)
    ]
    return X, np.array(["none", "peak"] * 12)


@pytest.fixture(scope="module")
def fitted(sequences) -> PretrainedClassifier:
    return PretrainedClassifier("dna-bert-mini", settings=QUICK).fit(*sequences)


@pytest.fixture(scope="module")
def regressor() -> PretrainedRegressor:
    data = pd.read_csv(sf.datasets.find("solubility")).head(40)
    return PretrainedRegressor("molecules-encoder-mini").fit(data["smiles"], data["logS"])


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize(
    "check",
    [
        check_estimator_repr,
        check_estimator_cloneable,
        check_do_not_raise_errors_in_init_or_set_params,
        check_no_attributes_set_in_init,
        check_get_params_invariance,
        check_set_params,
        check_mixin_order,
        check_valid_tag_types,
    ],
    ids=lambda check: check.__name__,
)
def test_checks_of_scikit_learn_that_need_no_data(check, kind):
    check(kind.__name__, kind())


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_parameters_default_constructible(kind):
    check_parameters_default_constructible(kind.__name__, kind())


def test_tags_say_that_inputs_are_text():
    tags = PretrainedClassifier().__sklearn_tags__()
    assert tags.input_tags.string and not tags.input_tags.two_d_array and tags.target_tags.required
    assert is_classifier(PretrainedClassifier()) and is_regressor(PretrainedRegressor())


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_estimators_unfitted(kind):
    """check_estimators_unfitted."""
    with pytest.raises(NotFittedError):
        kind("dna-bert-mini").predict(["ACGT" * 10])


def test_fit_returns_self_and_does_not_change_parameters(sequences):
    """check_estimators_fit_returns_self, check_dont_overwrite_attributes, check_dict_unchanged."""
    X, y = sequences
    given, labels = list(X), y.copy()
    estimator = PretrainedClassifier("dna-bert-mini", settings=QUICK)
    before = copy.deepcopy(estimator.get_params())
    assert estimator.fit(X, y) is estimator
    assert estimator.get_params() == before and list(X) == given and (y == labels).all()
    state = dict(vars(estimator))
    estimator.predict(X[:2])
    assert vars(estimator) == state
    assert {name for name in vars(estimator) if not name.endswith("_")} == set(before)


def test_fit_twice_is_the_same(fitted, sequences):
    """check_fit_idempotent: one seed, one result, to the last bit."""
    X, y = sequences
    before = fitted.predict_proba(X)
    again = clone(fitted).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), before)
    other = clone(fitted).set_params(seed=1).fit(X, y)
    assert not np.array_equal(other.predict_proba(X), before)


@pytest.mark.parametrize(
    "classes",
    [["b", "a"], [7, 3], [True, False], [2, 0, 1], ["x y", "ü", "-1"]],
    ids=["text", "integers", "booleans", "three", "odd names"],
)
def test_labels_come_back_as_given(classes, sequences):
    """check_classifiers_classes, check_classifiers_one_label of several kinds."""
    X, _ = sequences
    y = np.array(classes * (24 // len(classes)))
    estimator = PretrainedClassifier("dna-bert-mini", settings=QUICK).fit(X, y)
    np.testing.assert_array_equal(estimator.classes_, np.unique(y))
    predicted, probabilities = estimator.predict(X), estimator.predict_proba(X)
    assert predicted.dtype == y.dtype and set(predicted) <= set(y)
    assert probabilities.shape == (24, len(classes))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(estimator.classes_[probabilities.argmax(axis=1)], predicted)


def test_methods_do_not_depend_on_the_order_or_the_subset(fitted, sequences):
    """check_methods_sample_order_invariance, check_methods_subset_invariance."""
    X, _ = sequences
    whole = fitted.predict_proba(X)
    np.testing.assert_allclose(fitted.predict_proba(X[::-1])[::-1], whole, atol=1e-6)
    np.testing.assert_allclose(np.vstack([fitted.predict_proba([x]) for x in X]), whole, atol=1e-6)


def test_pickle_holds_the_fitted_checkpoint(fitted, sequences):
    """check_estimators_pickle; the checkpoint travels in the pickle, no folder is needed."""
    X, _ = sequences
    again = pickle.loads(pickle.dumps(fitted))
    assert again.model_.checkpoint.path != fitted.model_.checkpoint.path
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    assert again.get_params().keys() == fitted.get_params().keys()


def test_containers_of_inputs(fitted, sequences):
    """check_estimators_dtypes, for the containers of text: list, tuple, array, Series, one
    column.
    """
    X, _ = sequences
    expected = fitted.predict_proba(X)
    for given in (
        tuple(X),
        np.array(X),
        pd.Series(X, index=range(5, 29)),
        pd.DataFrame({"sequence": X}),
    ):
        np.testing.assert_array_equal(fitted.predict_proba(given), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: (X[:3], y), "3 inputs and y 24 labels"),
        (lambda X, y: (X, None), "requires y to be passed, but the target y is None"),
        (lambda X, y: ([], []), "0 sample"),
        (lambda X, y: (X, ["same"] * len(X)), "at least two classes"),
        (lambda X, y: (X, np.linspace(0, 1, len(X))), "continuous"),
        (lambda X, y: ("ACGT", ["a"]), "give a list of inputs"),
        (lambda X, y: (pd.DataFrame({"a": X, "b": X}), y), "2 columns"),
    ],
    ids=["lengths", "no y", "empty", "one class", "continuous", "one string", "two columns"],
)
def test_bad_fits_are_value_errors(change, message, sequences):
    """check_requires_y_none, check_classifiers_one_label, check_classifiers_regression_target,
    check_fit_empty.
    """
    with pytest.raises(ValueError, match=message):
        PretrainedClassifier("dna-bert-mini").fit(*change(*sequences))


def test_clone_of_a_model_in_memory(fitted):
    model = sf.load("dna-bert-mini")
    assert clone(PretrainedClassifier(model)).model is model
    with pytest.raises(sf.ConfigError, match="needs a model"):
        PretrainedClassifier().fit(["A"], ["b"])


def test_cross_validation_grid_and_pipeline(sequences):
    X, y = sequences
    estimator = PretrainedClassifier("dna-bert-mini", settings=QUICK)
    assert cross_val_score(estimator, X, y, cv=2).shape == (2,)
    search = GridSearchCV(estimator, {"seed": [0, 1]}, cv=2).fit(X, y)
    assert search.best_params_["seed"] in (0, 1) and search.predict(X[:2]).shape == (2,)
    pipeline = make_pipeline(FunctionTransformer(lambda X: [x.upper() for x in X]), estimator).fit(
        X, y
    )
    assert 0 <= pipeline.score(X, y) <= 1


def test_regressor_returns_floats_and_intervals(regressor):
    data = pd.read_csv(sf.datasets.find("solubility")).head(60)
    smiles = data["smiles"]
    value = regressor.predict(smiles)
    assert (
        value.dtype == float
        and value.shape == (60,)
        and regressor.score(smiles, data["logS"]) > 0.5
    )
    same, std = regressor.predict(smiles, return_std=True)
    low = regressor.predict(smiles, interval=True)[1]
    np.testing.assert_array_equal(same, value)
    assert (std > 0).all() and (low < value).all()
    coverage = regressor.model_.inputs.coverage
    width = {0.9: 1.645}[coverage]
    np.testing.assert_allclose((value - low) / std, width, rtol=1e-3)
    again = pickle.loads(pickle.dumps(regressor))
    np.testing.assert_array_equal(again.predict(smiles), value)


def test_regressor_without_intervals_says_so(sequences):
    X, _ = sequences
    y = np.arange(24.0)
    estimator = PretrainedRegressor("dna-bert-mini", settings=QUICK).fit(X, y)
    assert estimator.predict(X).dtype == float
    with pytest.raises(sf.ConfigError, match="no intervals"):
        estimator.predict(X, return_std=True)
    with pytest.raises(ValueError, match="NaN or infinity"):
        estimator.fit(X, np.append(y[:-1], np.nan))


@pytest.mark.parametrize("name", ["potential-mini", "vit-mini", "modern-mini-english"])
def test_every_domain_has_an_estimator(name):
    rng = np.random.default_rng(0)
    if name == "potential-mini":
        from ase.build import molecule

        X = [molecule("CH3OH") for _ in range(6)]
        for atoms in X:
            atoms.rattle(0.05, rng=rng)
        estimator = PretrainedRegressor(name, settings=QUICK).fit(X, rng.normal(size=6))
        assert estimator.predict(X).shape == (6,)
        return
    X = {
        "vit-mini": [rng.integers(0, 255, (8, 8), dtype=np.uint8) for _ in range(8)],
        "modern-mini-english": ["It rained all day.", "She said so."] * 4,
    }[name]
    estimator = PretrainedClassifier(name, settings=QUICK).fit(X, [0, 1] * 4)
    assert estimator.predict(X).dtype.kind == "i" and estimator.predict_proba(X).shape == (8, 2)
    assert estimator.transform(X[:3]).shape[0] == 3
