"""Text: a BERT that is pretrained on general text, adapted to a field without labels, and
specialised with few.
"""

from sciforge.core.data.duplicate_audit import AuditNearDuplicates
from sciforge.core.domain import Domain
from sciforge.core.training.reliability import Reliability, reliability
from sciforge.text.data.augmentations import AUGMENTATIONS, embed
from sciforge.text.data.codec import TextCodec
from sciforge.text.data.documents import Documents
from sciforge.text.data.documents_in_memory import DocumentsInMemory
from sciforge.text.data.fingerprint import FINGERPRINT
from sciforge.text.demo import demo
from sciforge.text.evaluation.baselines import BASELINES
from sciforge.text.evaluation.laws import LAWS
from sciforge.text.inference.document_embeddings import DocumentEmbeddings
from sciforge.text.inference.document_scores import DocumentScores
from sciforge.text.inference.fill_masks import FillMasks, fill_masks
from sciforge.text.inference.inputs import TextInputs
from sciforge.text.inference.roc import RocCurve, roc_curve_of
from sciforge.text.inference.word_tags import WordTags, tags
from sciforge.text.model.bert import MODELS, Bert, BertConfig
from sciforge.text.model.modern_bert import MODELS as MODERN
from sciforge.text.model.modern_bert import ModernBert, ModernBertConfig
from sciforge.text.model.published_weights import from_transformers, import_bert
from sciforge.text.objectives.document_labels import ClassifyDocuments, RateDocuments
from sciforge.text.objectives.masked_words import MaskedWords
from sciforge.text.objectives.replaced_words import ReplacedWords
from sciforge.text.objectives.word_tags import TagWords

DOMAIN = Domain(
    name="text",
    summary="BERT and its successors: general text, then a field's own, then few labels",
    preparers={"documents": Documents},
    codec=TextCodec(),
    models={**MODELS, **MODERN},
    objectives={
        "masked-words": MaskedWords,
        "replaced-words": ReplacedWords,
        "documents": ClassifyDocuments,
        "document-values": RateDocuments,
        "word-tags": TagWords,
    },
    outputs={
        "document-scores": DocumentScores,
        "document-embeddings": DocumentEmbeddings,
        "roc": RocCurve,
        "reliability": Reliability,
        "tagged": WordTags,
        "fill-masks": FillMasks,
    },
    laws=LAWS,
    baselines=BASELINES,
    audits={"near-duplicates": AuditNearDuplicates},
    demo=demo,
    augmentations=AUGMENTATIONS,
    embed=embed,
    fingerprint=FINGERPRINT,
    inputs=TextInputs(),
    methods={
        "fill_masks": fill_masks,
        "tags": tags,
        "roc": roc_curve_of,
        "reliability": reliability,
    },
)

__all__ = [
    "DOMAIN",
    "AuditNearDuplicates",
    "Bert",
    "BertConfig",
    "ClassifyDocuments",
    "DocumentEmbeddings",
    "DocumentScores",
    "Documents",
    "DocumentsInMemory",
    "FillMasks",
    "MaskedWords",
    "ModernBert",
    "ModernBertConfig",
    "RateDocuments",
    "Reliability",
    "ReplacedWords",
    "RocCurve",
    "TagWords",
    "TextCodec",
    "WordTags",
    "from_transformers",
    "import_bert",
]
