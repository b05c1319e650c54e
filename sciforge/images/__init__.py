"""Images: a Vision Transformer, pretrained by filling hidden patches, specialised with few labels."""

from sciforge.core.domain import Domain
from sciforge.images.augmentations import AUGMENTATIONS
from sciforge.images.baselines import BASELINES
from sciforge.images.codec import ImageCodec
from sciforge.images.demo import demo
from sciforge.images.detection import DetectObjects
from sciforge.images.inpainting import InpaintPatches
from sciforge.images.labels import ClassifyImages, RegressImages
from sciforge.images.laws import LAWS
from sciforge.images.model import MODELS, VisionTransformer, VitConfig, embed
from sciforge.images.outputs import (
    AttentionMaps,
    Detections,
    ImageEmbeddings,
    ImageLabels,
    Reconstructions,
    Segments,
)
from sciforge.images.prepare import PrepareImages
from sciforge.images.relative import RelativePositions
from sciforge.images.scenes import PrepareScenes
from sciforge.images.segmentation import SegmentPatches

DOMAIN = Domain(
    name="images",
    summary="Vision Transformer: classes, numbers, objects and segments of images from few labels",
    preparers={"images": PrepareImages, "scenes": PrepareScenes},
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

__all__ = ["DOMAIN", "ClassifyImages", "ImageCodec", "InpaintPatches", "VisionTransformer", "VitConfig"]
