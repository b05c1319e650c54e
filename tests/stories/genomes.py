"""A FASTA and a BED of sites: a classifier, a scan, and a saved model that predicts the same."""

import numpy as np
import pandas as pd

import sciforge as sf

rng = np.random.default_rng(0)
contigs, sites = {}, []
for contig in ("chr1", "chr2", "chr3"):
    sequence = "".join(rng.choice(list("ACGT"), 120_000))
    for start in range(1000, 118_000, 2000):
        sequence = sequence[:start] + "TATAAAGGCGTATAAA" * 4 + sequence[start + 64 :]
        sites.append(f"{contig}\t{start - 68}\t{start + 132}\tpeak\t0\t+")
    contigs[contig] = sequence
with open("genome.fa", "w") as fasta:
    fasta.writelines(f">{contig}\n{sequence}\n" for contig, sequence in contigs.items())
with open("peaks.bed", "w") as bed:
    bed.write("\n".join(sites) + "\n")

task = sf.prepare(
    sf.genomes.Intervals(genome="genome.fa", intervals="peaks.bed", length=200, test=["chr3"])
)
assert set(task.to_pandas("test").columns) >= {"chrom", "start", "end", "strand", "label"}
model = sf.load("dna-bert-mini").fit(task, labels=64, seed=0)
scores = model.evaluate(task)
assert scores["mcc"] > 0.5, scores
table = model.predict(["ACGT" * 50, contigs["chr3"][932:1132]])
assert isinstance(table, pd.DataFrame) and table.index.tolist() == [0, 1]
scan = model.scan("genome.fa", contigs=["chr3"], step=200)
assert {"chrom", "start", "end", "strand", "probability"} <= set(scan.to_pandas().columns)
scan.to_bed("regions.bed", threshold=0.9)
assert pd.read_csv("regions.bed", sep="\t", header=None)[0].eq("chr3").all()
scan.plot("chr3:1000-19000").figure.savefig("scan.png")
model.save("peaks-model")
again = sf.load("peaks-model").predict(["ACGT" * 50, contigs["chr3"][932:1132]])
pd.testing.assert_frame_equal(again, table)
assert "<table" in task._repr_html_() and "<table" in scores._repr_html_()
