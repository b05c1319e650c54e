"""Images are near duplicates where most of their edges, coarsely seen, are the same."""

import numpy as np

from sciforge.core.domain import Fingerprint, Record

SIDE = 16  # pixels of the coarse image, a side
EDGE = 0.25  # of the standard deviation of the coarse image: smaller differences are no edge


def features(record: Record) -> np.ndarray:
    """Return place, direction and sign of the edges of the image at 16 x 16 pixels, uint64.

    Scale, brightness, contrast and compression change few of them. An image without edges has none,
    and resembles nothing.

    >>> image = np.random.default_rng(0).integers(0, 200, (64, 64, 1)).astype(np.uint8)
    >>> one, other = features({"image": image}), features({"image": image + np.uint8(40)})
    >>> len(set(one) & set(other)) / len(set(one) | set(other)) > 0.95
    True
    """
    from PIL import Image

    grey_HW = np.asarray(record["image"], np.float32).mean(-1)
    coarse = np.asarray(Image.fromarray(grey_HW).resize((SIDE, SIDE), Image.Resampling.BOX))
    margin = max(EDGE * float(coarse.std()), 1e-3)
    steps = np.stack([np.diff(coarse, axis=0).T, np.diff(coarse, axis=1)]).ravel()
    places = np.arange(len(steps))
    edges = [2 * places[steps > margin], 2 * places[steps < -margin] + 1]
    return np.concatenate(edges).astype(np.uint64)


FINGERPRINT = Fingerprint(
    columns=("image",),
    features=features,
    similarity=0.8,
    summary="edges at 16 x 16 pixels",
    kinds=("images",),
)
