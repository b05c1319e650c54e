"""The audit of near duplicates finds leaks in every domain, and its groups mend them."""

import json
from pathlib import Path

import pandas as pd
import pytest
from strangers import COUNT, DOMAINS, DONORS, natural_inputs

import sciforge as sf
from sciforge.cli.main import main
from sciforge.core.data.dataset import Dataset, as_dataset
from sciforge.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore:.*never change")
SEQUENCES = natural_inputs("genomes")[0]


def _changed(sequence: str) -> str:
    return sequence[:30] + ("A" if sequence[30] != "A" else "C") + sequence[31:]


@pytest.fixture
def leaky() -> Dataset:
    """Ten test sequences that differ from training ones in one base, and ten that do not."""
    inputs = [*SEQUENCES[:30], *map(_changed, SEQUENCES[:10]), *SEQUENCES[30:]]
    split = ["train"] * 30 + ["test"] * 20
    return as_dataset(inputs, ["no", "yes"] * 25, domain="genomes", split=split)


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_domain_has_the_audit(domain: str) -> None:
    inputs, labels = natural_inputs(domain)
    split = ["train", "test"] * (COUNT // 2)
    dataset = as_dataset(inputs, labels, domain=domain, split=split, group=DONORS)
    report = sf.audit(dataset, "near-duplicates")
    assert report.metrics["torn_groups"] == 7
    assert any("7 groups span" in line for line in report.warnings)
    everything = sf.audit(dataset, "near-duplicates", similarity=1e-6)
    assert everything.metrics["near_duplicates"] >= report.metrics["near_duplicates"]


def test_counts_shares_and_examples(leaky: Dataset) -> None:
    report = sf.audit(leaky, "near-duplicates", examples=3)
    assert report.metrics["near_duplicates"] == 10 and report.metrics["share"] == 0.5
    counts, examples = report.section.tables
    assert counts.rows == (("test", "20", "10", "50.0%"),) and len(examples.rows) == 3
    similarity, test, training = examples.rows[0]
    assert 0.6 <= float(similarity) < 1
    assert int(test.split()[1]) == int(training.split()[1]) + 30
    assert any("10 of 20 test records" in line for line in report.warnings)


def test_the_groups_mend_the_split(leaky: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "groups.csv"
    sf.audit(leaky, "near-duplicates", groups=file)
    table = pd.read_csv(file)
    assert len(table) == 50 and table["group"].nunique() == 40
    table.drop(columns="split").to_csv(tmp_path / "again.csv", index=False)
    again = sf.prepare(sf.genomes.Sequences(files=(tmp_path / "again.csv",), group_column="group"))
    assert sf.audit(again, "near-duplicates").metrics["near_duplicates"] == 0
    assert again.checks.near.count == 0 and len(again.split("test"))


def test_groups_that_were_named_stay_together(tmp_path: Path) -> None:
    inputs = [*SEQUENCES[:3], _changed(SEQUENCES[0])]
    group = ["a", "b", "b", "c"]
    dataset = as_dataset(inputs, ["no", "yes"] * 2, domain="genomes", group=group)
    sf.audit(dataset, "near-duplicates", groups=tmp_path / "groups.csv")
    names = pd.read_csv(tmp_path / "groups.csv")["group"].tolist()
    assert names == ["group 0", "group 1", "group 1", "group 0"]


def test_on_the_command_line(leaky: Dataset, capsys: pytest.CaptureFixture) -> None:
    argv = ["audit", "near-duplicates", "--data", str(leaky.path)]
    assert main(argv) == 0
    assert "50.0%" in capsys.readouterr().out
    assert main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["near_duplicates"] == 10


def test_what_cannot_be_audited_is_refused(leaky: Dataset, tiny: object) -> None:
    with pytest.raises(ConfigError, match="name the audit"):
        sf.audit(leaky)
    with pytest.raises(ConfigError, match="no option 'similar'; did you mean 'similarity'"):
        sf.audit(leaky, "near-duplicates", similar=0.5)
    with pytest.raises(ConfigError, match="similarity is 1.5"):
        sf.audit(leaky, "near-duplicates", similarity=1.5)
    with pytest.raises(ConfigError, match="not compared"):
        sf.audit(tiny.store, "near-duplicates")


def test_without_a_held_out_split_nothing_can_leak() -> None:
    dataset = as_dataset(SEQUENCES, ["no", "yes"] * 20, domain="genomes")
    report = sf.audit(dataset, "near-duplicates")
    assert "near_duplicates" not in report.metrics
    assert "nothing can leak" in report.section.text()
