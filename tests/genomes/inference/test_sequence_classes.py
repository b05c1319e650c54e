"""Classes of sequences in files: windows, probabilities, and failures that name what is wrong."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from genome_files import WINDOW, codes, letters, write

from sciforge.errors import ConfigError, DataError
from sciforge.genomes import Classes, Embeddings


def test_classes_are_what_the_predictor_says(stranded, tmp_path):
    rng = np.random.default_rng(2)
    contigs = {"whole": letters(rng, WINDOW), "short": letters(rng, 31), "long": letters(rng, 140)}
    result = Classes(files=(write(tmp_path / "s.fa", contigs),)).run(stranded)
    table = result.to_pandas()
    assert list(table.columns) == ["name", "start", "end", "label", "probability"]
    long = [("long", start, start + WINDOW) for start in (0, 30, 60, 80)]
    spans = [("whole", 0, WINDOW), ("short", 0, 31), *long]
    assert [tuple(row) for row in table[["name", "start", "end"]].itertuples(index=False)] == spans
    expected = stranded.outputs(
        {"bases": codes(contigs[name][start:end])} for name, start, end in spans
    )["probability"]
    assert table["probability"].to_numpy() == pytest.approx(expected[:, 1], abs=1e-6)
    assert table["label"].tolist() == [("no", "yes")[p] for p in expected.argmax(1)]
    # no line but the header stands before the rows
    saved = pd.read_csv(result.save(tmp_path / "t.tsv"), sep="\t")
    pd.testing.assert_frame_equal(saved, table, check_dtype=False, rtol=1e-5)
    about = json.loads((tmp_path / "t.json").read_text())
    assert (
        about["checkpoint"] == str(stranded.checkpoint.path) and len(about["weights_sha256"]) == 64
    )


def test_class_probabilities_do_not_depend_on_the_batch(stranded, free):
    rng = np.random.default_rng(3)
    sequences = [codes(letters(rng, length)) for length in (60, 12, 33, 60, 47, 25)]
    for predictor in (stranded, free):
        with torch.no_grad():  # near zero after so few steps
            predictor.network.heads["class"].place_CTR.normal_(
                generator=torch.Generator().manual_seed(0)
            )
        together = predictor.outputs({"bases": s} for s in sequences)["probability"]
        alone = [predictor.outputs([{"bases": s}])["probability"][0] for s in sequences]
        assert together == pytest.approx(np.stack(alone), abs=1e-5)


def test_classes_refuse_what_they_cannot_score(stranded, pretrained, tmp_path):
    good = write(tmp_path / "good.fa", {"a": "ACGT" * 15})
    bad = write(tmp_path / "bad.fa", {"b": "ACGT!ACGT"})
    with pytest.raises(DataError, match=r"bad\.fa:2: "):
        Classes(files=(good, bad)).run(stranded)
    with pytest.raises(ConfigError, match="'c' .*shorter than k = 3"):
        Classes(files=(good, write(tmp_path / "c.fa", {"c": "AC"}))).run(stranded)
    with pytest.raises(ConfigError, match="MaskedKmers, not to classify"):
        Classes(files=good).run(pretrained)


def test_bad_sequences_are_left_out_on_request_and_listed(stranded, tmp_path, caplog):
    fasta = write(tmp_path / "a.fa", {"a": "ACGT" * 15, "b": "ACGT!", "c": "AC"})
    table = tmp_path / "t.csv"
    table.write_text(f"sequence,name\n{'ACGT' * 15},d\nACG TAC,e\n")
    result = Classes(files=(fasta, table), on_error="skip").run(stranded)
    assert result.to_pandas()["name"].tolist() == ["a", "d"]
    assert {reject["name"] for reject in result.about["rejected"]} == {"b", "c", "e"}
    assert "3 bad records left out" in caplog.text
    embedded = Embeddings(files=(fasta, table), on_error="skip").run(stranded)
    assert list(embedded.names) == ["a", "d"] and len(embedded.about["rejected"]) == 3
    with pytest.raises(DataError, match="every record was rejected"):
        Classes(files=(write(tmp_path / "c.fa", {"c": "AC"}),), on_error="skip").run(stranded)
