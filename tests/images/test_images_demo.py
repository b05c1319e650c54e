"""The demo's section, with fewer draws and steps than it takes, on the bundled net and pictures."""

import sys
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from sciforge import catalog
from sciforge.core.training.model import Model
from sciforge.images import demo as made_by
from sciforge.images.data.codec import to_patches
from sciforge.images.data.readers import read_many
from sciforge.nn.transformer import take

made = sys.modules[made_by.__module__]  # the package's `demo` is the function


def test_the_demo_says_what_it_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(made, "SEEDS", 1)
    monkeypatch.setattr(made, "FIND", replace(made.FIND, steps=2))
    monkeypatch.setattr(made, "SCENES", (16, 0, 8))
    section = made.demo(tmp_path, catalog.find)
    (table,) = section.tables
    accuracy = {row[0]: float(row[1]) for row in table.rows}
    assert len(accuracy) == 4 and all(0.5 < value < 0.95 for value in accuracy.values())
    assert accuracy["ViT, pretrained on hidden patches"] > accuracy["the same ViT, random weights"]
    assert "600 test pictures" in section.paragraphs[0] and "In 8 scenes" in section.paragraphs[1]
    for path, caption in section.pictures:
        with Image.open(path) as image:
            image.load()
        assert caption.endswith(".")


def test_the_bundled_net_keeps_the_laws_and_fills_in_better_than_what_it_saw():
    predictor = Model.load(catalog.locate("vit-mini"), device="cpu")
    assert all(law.holds for law in predictor.check())
    pictures = read_many(catalog.fetch("fashion-sample")).images[-60:]
    objective, model = predictor.objective, predictor.network
    examples = [
        objective.prepare({"image": x}, predictor.codec, np.random.default_rng(i), False)
        for i, x in enumerate(pictures)
    ]
    batch = predictor.codec.collate(examples)
    with torch.no_grad():
        loss = objective.loss(model, batch)
        seen = model.normalised(take(to_patches(batch["image"], model.patch), batch["visible"])).mean((1, 2))
        guess = (objective.targets(model, batch) - seen[:, None, None]).square().mean()
    assert float(loss.total / loss.count) < 0.25 * float(guess)
