"""Text: a BERT that is pretrained on general text, adapted to a field without labels, and specialised with few."""

from sciforge.core.domain import Domain
from sciforge.text.augmentations import AUGMENTATIONS, embed
from sciforge.text.baselines import BASELINES
from sciforge.text.codec import TextCodec
from sciforge.text.demo import demo
from sciforge.text.documents import ClassifyDocuments, RateDocuments
from sciforge.text.laws import LAWS
from sciforge.text.masked import MaskedWords
from sciforge.text.model import MODELS, Bert, BertConfig
from sciforge.text.modern import MODELS as MODERN
from sciforge.text.modern import ModernBert, ModernConfig
from sciforge.text.outputs import DocumentEmbeddings, DocumentScores, FillMasks, RocCurve, WordTags
from sciforge.text.prepare import PrepareDocuments
from sciforge.text.published import from_transformers, import_bert
from sciforge.text.replaced import ReplacedWords
from sciforge.text.tags import TagWords

DOMAIN = Domain(
    name="text",
    summary="BERT and its successors: general text, then a field's own, then few labels",
    preparers={"documents": PrepareDocuments},
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

__all__ = ["DOMAIN", "Bert", "BertConfig", "ClassifyDocuments", "MaskedWords", "PrepareDocuments", "RateDocuments"]
__all__ += ["ModernBert", "ModernConfig", "ReplacedWords", "TagWords", "TextCodec", "from_transformers", "import_bert"]
