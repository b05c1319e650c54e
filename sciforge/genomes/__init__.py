"""Genomes: a k-mer DNA-BERT, pretrained on whole genomes, specialised with few labels."""

from sciforge.core.domain import Domain
from sciforge.genomes.audits import AuditMasks, AuditShortcuts, AuditSplits
from sciforge.genomes.augmentations import AUGMENTATIONS, embed
from sciforge.genomes.baselines import BASELINES
from sciforge.genomes.cnn import SmallCnnConfig
from sciforge.genomes.codec import KmerCodec
from sciforge.genomes.demo import demo
from sciforge.genomes.labels import Classify, Regress, TagBases
from sciforge.genomes.laws import LAWS
from sciforge.genomes.model import MODELS, DnaBert, DnaBertConfig
from sciforge.genomes.mutagenesis import Mutagenesis
from sciforge.genomes.objectives import MaskedKmers
from sciforge.genomes.outputs import Classes, Embeddings
from sciforge.genomes.prepare import PrepareGenome, PrepareLabelled
from sciforge.genomes.prepare_windows import (
    PrepareEcoliCoding,
    PrepareIntervals,
    PrepareTracks,
    PrepareYeastPromoters,
)
from sciforge.genomes.replaced import ReplacedKmers
from sciforge.genomes.scan import Scan
from sciforge.genomes.variants import Variants

DOMAIN = Domain(
    name="genomes",
    summary="k-mer DNA-BERT: promoters, coding windows and other elements from few labels",
    preparers={
        "genome": PrepareGenome,
        "sequences": PrepareLabelled,
        "intervals": PrepareIntervals,
        "tracks": PrepareTracks,
        "yeast-promoters": PrepareYeastPromoters,
        "ecoli-coding": PrepareEcoliCoding,
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
    },
    laws=LAWS,
    baselines=BASELINES,
    audits={"masks": AuditMasks, "shortcuts": AuditShortcuts, "splits": AuditSplits},
    demo=demo,
    augmentations=AUGMENTATIONS,
    embed=embed,
)

__all__ = ["DOMAIN", "Classify", "DnaBert", "DnaBertConfig", "KmerCodec", "MaskedKmers"]
