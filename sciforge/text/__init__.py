"""Text: a BERT that is pretrained on general text, adapted to a field without labels, and specialised with few."""

from sciforge.core.domain import Domain
from sciforge.text.data.augmentations import AUGMENTATIONS, embed
from sciforge.text.data.codec import TextCodec
from sciforge.text.data.documents import Documents
from sciforge.text.demo import demo
from sciforge.text.evaluation.baselines import BASELINES
from sciforge.text.evaluation.laws import LAWS
from sciforge.text.inference.documents import DocumentEmbeddings, DocumentScores, FillMasks, RocCurve, WordTags
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
        "tagged": WordTags,
        "fill-masks": FillMasks,
    },
    laws=LAWS,
    baselines=BASELINES,
    demo=demo,
    augmentations=AUGMENTATIONS,
    embed=embed,
)

__all__ = ["DOMAIN", "Bert", "BertConfig", "ClassifyDocuments", "MaskedWords", "Documents", "RateDocuments"]
__all__ += [
    "ModernBert",
    "ModernBertConfig",
    "ReplacedWords",
    "TagWords",
    "TextCodec",
    "from_transformers",
    "import_bert",
]
