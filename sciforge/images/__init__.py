"""Images: a Vision Transformer, pretrained by filling hidden patches, specialised with few
labels.
"""

from collections.abc import Callable
from pathlib import Path

from sciforge.core.data.duplicate_audit import AuditNearDuplicates
from sciforge.core.domain import Domain
from sciforge.core.files.tables import Section
from sciforge.core.training.reliability import Reliability, reliability
from sciforge.images.data.augmentations import AUGMENTATIONS
from sciforge.images.data.codec import ImageCodec
from sciforge.images.data.fingerprint import FINGERPRINT
from sciforge.images.data.prepare import Images
from sciforge.images.data.scenes import Scenes
from sciforge.images.evaluation.baselines import BASELINES
from sciforge.images.evaluation.laws import LAWS
from sciforge.images.inference.inputs import ImageInputs
from sciforge.images.inference.outputs import (
    METHODS,
    OUTPUTS,
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


def _demo(folder: Path, find: Callable[[str], Path], full: bool = False) -> Section:
    from sciforge.images.demo import demo

    return demo(folder, find, full)


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
    outputs={**OUTPUTS, "reliability": Reliability},
    laws=LAWS,
    baselines=BASELINES,
    audits={"near-duplicates": AuditNearDuplicates},
    demo=_demo,
    augmentations=AUGMENTATIONS,
    embed=embed,
    fingerprint=FINGERPRINT,
    inputs=ImageInputs(),
    methods={**METHODS, "reliability": reliability},
)

__all__ = [
    "DOMAIN",
    "AuditNearDuplicates",
    "AttentionMaps",
    "ClassifyImages",
    "DetectObjects",
    "Detections",
    "ImageCodec",
    "ImageEmbeddings",
    "ImageLabels",
    "Images",
    "InpaintPatches",
    "Reconstructions",
    "RegressImages",
    "RelativePositions",
    "Reliability",
    "Scenes",
    "SegmentPatches",
    "Segments",
    "VisionTransformer",
    "VitConfig",
]
