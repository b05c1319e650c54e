"""The bundled checkpoint vit-mini."""

import numpy as np
import torch

from sciforge import catalog
from sciforge.core.training.model import Model
from sciforge.images.data.codec import to_patches
from sciforge.images.data.readers import read_many
from sciforge.nn.transformer import take


def test_it_keeps_the_laws_and_fills_in_better_than_what_it_saw():
    model = Model.load(catalog.locate("vit-mini"), device="cpu")
    assert all(law.holds for law in model.check())
    pictures = read_many(catalog.fetch("fashion-sample")).images[-60:]
    objective, network = model.objective, model.network
    examples = [
        objective.prepare({"image": x}, model.codec, np.random.default_rng(i), False)
        for i, x in enumerate(pictures)
    ]
    batch = model.codec.collate(examples)
    with torch.no_grad():
        loss = objective.loss(network, batch)
        seen = network.normalised(
            take(to_patches(batch["image"], network.patch), batch["visible"])
        ).mean((1, 2))
        guess = (objective.targets(network, batch) - seen[:, None, None]).square().mean()
    assert float(loss.total / loss.count) < 0.25 * float(guess)
