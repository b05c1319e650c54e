"""Genomes: a k-mer DNA-BERT, pretrained on whole genomes, specialised with few labels."""

from sciforge.core.data.duplicate_audit import AuditNearDuplicates
from sciforge.core.domain import Domain
from sciforge.core.training.reliability import Reliability, reliability
from sciforge.genomes.data.annotated_windows import EcoliCoding, Intervals, Tracks, YeastPromoters
from sciforge.genomes.data.augmentations import AUGMENTATIONS, embed
from sciforge.genomes.data.codec import KmerCodec
from sciforge.genomes.data.fingerprint import FINGERPRINT
from sciforge.genomes.data.genome import Genome
from sciforge.genomes.data.labelled_sequences import Sequences, SequencesInMemory
from sciforge.genomes.demo import demo
from sciforge.genomes.evaluation.audits import AuditMasks, AuditShortcuts, AuditSplits
from sciforge.genomes.evaluation.baselines import BASELINES
from sciforge.genomes.evaluation.laws import LAWS
from sciforge.genomes.inference.embeddings import Embeddings
from sciforge.genomes.inference.inputs import SequenceInputs
from sciforge.genomes.inference.mutagenesis import Mutagenesis, mutagenesis
from sciforge.genomes.inference.scan import Scan, scan
from sciforge.genomes.inference.sequence_classes import Classes
from sciforge.genomes.inference.variants import Variants, variants
from sciforge.genomes.model.cnn import SmallCnnConfig
from sciforge.genomes.model.dna_bert import MODELS, DnaBert, DnaBertConfig
from sciforge.genomes.objectives.base_tags import TagBases
from sciforge.genomes.objectives.masked_kmers import MaskedKmers
from sciforge.genomes.objectives.replaced_kmers import ReplacedKmers
from sciforge.genomes.objectives.sequence_labels import Classify, Regress

DOMAIN = Domain(
    name="genomes",
    summary="k-mer DNA-BERT: promoters, coding windows and other elements from few labels",
    preparers={
        "genome": Genome,
        "sequences": Sequences,
        "intervals": Intervals,
        "tracks": Tracks,
        "yeast-promoters": YeastPromoters,
        "ecoli-coding": EcoliCoding,
    },
    codec=KmerCodec(),
    models={**MODELS, "cnn": SmallCnnConfig()},
    objectives={
        "masked": MaskedKmers,
        "replaced": ReplacedKmers,
        "classify": Classify,
        "regress": Regress,
        "tag": TagBases,
    },
    outputs={
        "classes": Classes,
        "embeddings": Embeddings,
        "scan": Scan,
        "variants": Variants,
        "mutagenesis": Mutagenesis,
        "reliability": Reliability,
    },
    laws=LAWS,
    baselines=BASELINES,
    audits={
        "masks": AuditMasks,
        "shortcuts": AuditShortcuts,
        "splits": AuditSplits,
        "near-duplicates": AuditNearDuplicates,
    },
    demo=demo,
    augmentations=AUGMENTATIONS,
    embed=embed,
    fingerprint=FINGERPRINT,
    inputs=SequenceInputs(),
    methods={
        "scan": scan,
        "variants": variants,
        "mutagenesis": mutagenesis,
        "reliability": reliability,
    },
)

__all__ = [
    "DOMAIN",
    "AuditNearDuplicates",
    "AuditMasks",
    "AuditShortcuts",
    "AuditSplits",
    "Classes",
    "Classify",
    "DnaBert",
    "DnaBertConfig",
    "EcoliCoding",
    "Embeddings",
    "Genome",
    "Intervals",
    "KmerCodec",
    "MaskedKmers",
    "Mutagenesis",
    "Regress",
    "Reliability",
    "ReplacedKmers",
    "Scan",
    "Sequences",
    "SequencesInMemory",
    "SmallCnnConfig",
    "TagBases",
    "Tracks",
    "Variants",
    "YeastPromoters",
]
