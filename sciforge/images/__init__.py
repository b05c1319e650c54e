"""Images: a Vision Transformer, pretrained by filling hidden patches, specialised with few labels."""

from sciforge.core.domain import Domain
from sciforge.images.data.augmentations import AUGMENTATIONS
from sciforge.images.data.codec import ImageCodec
from sciforge.images.data.prepare import Images
from sciforge.images.data.scenes import Scenes
from sciforge.images.demo import demo
from sciforge.images.evaluation.baselines import BASELINES
from sciforge.images.evaluation.laws import LAWS
from sciforge.images.inference.predictions import (
    AttentionMaps,
    Detections,
    ImageEmbeddings,
    ImageLabels,
    Reconstructions,
    Segments,
)
from sciforge.images.model.vit import MODELS, VisionTransformer, VitConfig, embed
from sciforge.images.objectives.detection import DetectObjects
from sciforge.images.objectives.inpainting import InpaintPatches
from sciforge.images.objectives.relative_position import RelativePositions
from sciforge.images.objectives.segmentation import SegmentPatches
from sciforge.images.objectives.supervised import ClassifyImages, RegressImages

DOMAIN = Domain(
    name="images",
    summary="Vision Transformer: classes, numbers, objects and segments of images from few labels",
    preparers={"images": Images, "scenes": Scenes},
    codec=ImageCodec(),
    models=MODELS,
    objectives={
        "inpaint": InpaintPatches,
        "relative": RelativePositions,
        "classify-images": ClassifyImages,
        "regress-images": RegressImages,
        "detect": DetectObjects,
        "segment": SegmentPatches,
    },
    outputs={
        "image-labels": ImageLabels,
        "image-embeddings": ImageEmbeddings,
        "detections": Detections,
        "segments": Segments,
        "reconstructions": Reconstructions,
        "attention": AttentionMaps,
    },
    laws=LAWS,
    baselines=BASELINES,
    demo=demo,
    augmentations=AUGMENTATIONS,
    embed=embed,
)

__all__ = [
    "DOMAIN",
    "ClassifyImages",
    "ImageCodec",
    "Images",
    "InpaintPatches",
    "Scenes",
    "VisionTransformer",
    "VitConfig",
]
