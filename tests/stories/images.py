"""Arrays of images with few labels, and hidden patches filled in."""

import numpy as np
from sklearn.datasets import load_digits

import sciforge as sf

digits = load_digits()
images = (digits.images * 15.9).astype(np.uint8)
train, test = np.arange(200), np.arange(200, 500)
model = sf.load("vit-mini").fit(list(images[train]), digits.target[train], seed=0)
table = model.predict(list(images[test]))
assert (table["label"].astype(int).to_numpy() == digits.target[test]).mean() > 0.7
assert sf.load("vit-mini").reconstruct(list(images[:4])).plot() is not None
