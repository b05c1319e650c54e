"""Embeddings of sequences: means of real tokens, whatever the batch."""

import numpy as np
import pytest
import torch
from genome_files import codes, letters, turned, write

from sciforge.core.training.model import Model
from sciforge.errors import ConfigError
from sciforge.genomes import Embeddings


def embedded(folder, predictor, contigs, **options):
    files = (write(folder / "s.fa", contigs),)
    with np.load(Embeddings(files=files, **options).run(predictor).save(folder / "e.npz")) as found:
        return dict(found)


def test_embeddings_are_named_and_the_means_of_real_tokens(pretrained, tmp_path):
    rng = np.random.default_rng(18)
    contigs = {"a": letters(rng, 40), "b": letters(rng, 7), "c": letters(rng, 130)}
    found = embedded(tmp_path, pretrained, contigs, layers=(0, -1, 2))
    assert set(found) == {"names", "provenance", "layer_0", "layer_2"}  # -1 and 2 are one layer
    assert found["names"].tolist() == ["a", "b", "c"]
    assert (
        found["layer_0"].shape == found["layer_2"].shape == (3, 16)
        and found["layer_2"].dtype == np.float32
    )
    windows = {"a": [contigs["a"]], "b": [contigs["b"]]}
    windows["c"] = [contigs["c"][start : start + 48] for start in (0, 48, 82)]
    for row, name in enumerate(windows):
        batches = [
            pretrained.codec.collate([{"bases": torch.tensor(codes(w))}]) for w in windows[name]
        ]
        with torch.no_grad():
            states = torch.cat([pretrained.network(batch)[0] for batch in batches])
        assert found["layer_2"][row] == pytest.approx(states.mean(0).numpy(), abs=1e-5)


def test_embeddings_do_not_depend_on_the_batch(tiny, tmp_path):
    rng = np.random.default_rng(19)
    contigs = {f"s{n}": letters(rng, n) for n in (130, 20, 48, 97, 60, 9)}
    found = [
        embedded(
            tmp_path, Model.load(tiny.checkpoint.path, "cpu", batch), contigs, layers=(0, 1, 2)
        )
        for batch in (1, 2, 64)
    ]
    for other in found[1:]:
        assert all(
            other[name] == pytest.approx(found[0][name], abs=1e-5)
            for name in other
            if "layer" in name
        )


def test_embeddings_of_both_strands_do_not_know_the_strand(pretrained, tmp_path):
    bases = letters(np.random.default_rng(20), 45)
    one = embedded(tmp_path, pretrained, {"a": bases, "b": turned(bases)}, both_strands=False)[
        "layer_2"
    ]
    both = embedded(tmp_path, pretrained, {"a": bases, "b": turned(bases)}, both_strands=True)[
        "layer_2"
    ]
    assert both[0] == pytest.approx(both[1], abs=1e-5) and np.abs(one[0] - one[1]).max() > 1e-3
    assert both[0] == pytest.approx(one.mean(0), abs=1e-5)


def test_embeddings_refuse_layers_that_are_not_there(pretrained, tmp_path):
    for layers in ((3,), (-4,), ()):
        with pytest.raises(ConfigError, match="layer"):
            embedded(tmp_path, pretrained, {"a": "ACGTACGT"}, layers=layers)
    assert not (tmp_path / "e.npz").exists()
