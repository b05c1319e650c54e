"""Documents with few labels, and scikit-learn's tools around the estimator."""

import pandas as pd
from sklearn.model_selection import cross_val_score

import sciforge as sf
from sciforge.sklearn import PretrainedClassifier

speech = pd.read_csv(sf.datasets.find("austen-speech")).sample(120, random_state=0)
model = sf.load("modern-mini-english").fit(speech, input="text", target="label", seed=0)
assert model.predict(["“I am all astonishment,” said she."]).shape[0] == 1
score = cross_val_score(
    PretrainedClassifier("modern-mini-english"), speech["text"].tolist(), speech["label"], cv=3
)
assert score.mean() > 0.75, score
curve = sf.label_efficiency(
    speech,
    input="text",
    target="label",
    init="modern-mini-english",
    sizes=[16, 32],
    seeds=2,
    methods=["pretrained", "untrained"],
)
assert {"pretrained", "untrained"} <= set(curve.to_pandas()["method"])
assert curve.plot() is not None and "<table" in curve._repr_html_()
