"""Text: a BERT that is pretrained on general text, adapted to a field without labels, and specialised with few."""

from sciforge.core.domain import Domain
from sciforge.text.codec import TextCodec
from sciforge.text.documents import ClassifyDocuments, RateDocuments
from sciforge.text.masked import MaskedWords
from sciforge.text.model import MODELS, Bert, BertConfig
from sciforge.text.prepare import PrepareDocuments
from sciforge.text.replaced import ReplacedWords

DOMAIN = Domain(
    name="text",
    summary="BERT and its successors: general text, then a field's own, then few labels",
    preparers={"documents": PrepareDocuments},
    codec=TextCodec(),
    models=MODELS,
    objectives={
        "masked-words": MaskedWords,
        "replaced-words": ReplacedWords,
        "documents": ClassifyDocuments,
        "document-values": RateDocuments,
    },
)

__all__ = ["DOMAIN", "Bert", "BertConfig", "ClassifyDocuments", "MaskedWords", "RateDocuments", "TextCodec"]
