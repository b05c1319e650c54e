"""Small nets on top of a DnaBert's hidden states.

Legend of shape letters: B batch, T tokens, D width, C classes, F frames, P kinds of points.
"""

import torch
from torch import Tensor, nn

from sciforge.genomes.frames import NUM_DISTANCES, NUM_FRAMES, NUM_POINTS


class FrameHead(nn.Module):
    """Reading frame of each token's first base, and the distance classes to the nearest start and stop codons."""

    def __init__(self, width: int):
        super().__init__()
        self.frame = nn.Linear(width, NUM_FRAMES)
        self.distance = nn.Linear(width, NUM_POINTS * NUM_DISTANCES)
        for linear in (self.frame, self.distance):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits of the frame [B, T, 7] and of the distances [B, T, 4, 12]."""
        return self.frame(x_BTD), self.distance(x_BTD).unflatten(-1, (NUM_POINTS, NUM_DISTANCES))

    def summary(self, x_BTD: Tensor) -> Tensor:
        """Return probabilities [B, T, 51]: no frame, this strand, the other strand, and the distance classes."""
        frame_BTF, distance_BTPC = self(x_BTD)
        frame_BTF = frame_BTF.softmax(-1)
        strands = [frame_BTF[..., :1], frame_BTF[..., 1:4].sum(-1, keepdim=True), frame_BTF[..., 4:].sum(-1, keepdim=True)]
        return torch.cat([*strands, distance_BTPC.softmax(-1).flatten(-2)], dim=-1)
