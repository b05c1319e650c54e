"""Whose membership a privacy audit guesses, of which model."""

from dataclasses import dataclass
from pathlib import Path

from sciforge.core.files.settings import Settings
from sciforge.core.training.run import Hardware
from sciforge.errors import ConfigError

MIN_SHADOWS = 8  # below, Gaussians are fitted to two or three points


@dataclass(frozen=True, kw_only=True)
class Privacy(Settings):
    """Whose membership to guess, of which model: the checkpoint itself, or its recipe on other
    data.

    Args:
        checkpoint: path or name of a fine-tuned checkpoint; its run is the shadows' recipe.
        out: folder of the results, where an audit that was stopped continues; None for a temporary
            one, which lives as long as the result.
        members: store of what the checkpoint learnt.
        nonmembers: store of records like them that it has not learnt.
        data: instead of both, a store whose training split the shadows share: each is in turn the
            target of the others.
        members_split: which split of `members`; `all` for every record.
        nonmembers_split: which split of `nonmembers`.
        shadows: how many models to train, an even number; 64 and more are better, 16 a first look.
        max_records: largest number of records of each side, drawn at random; 0 for all.
        canaries: how many records not learnt by the checkpoint get a wrong label for the shadows,
            to see what is memorised at worst.
        init: where the checkpoint that the run started from is now, if it was moved.
        hardware: of the shadows.
        seed: of all random choices.
    """

    checkpoint: Path
    out: Path | None = None
    members: Path | None = None
    nonmembers: Path | None = None
    data: Path | None = None
    members_split: str = "train"
    nonmembers_split: str = "test"
    shadows: int = 16
    max_records: int = 0
    canaries: int = 0
    init: Path | None = None
    hardware: Hardware = Hardware()
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0, 2**62, "seed", "max_records", "canaries")
        if self.shadows < MIN_SHADOWS or self.shadows % 2:
            raise ConfigError(
                f"shadows is {self.shadows}; give an even number, at least {MIN_SHADOWS}"
            )
        if (self.data is None) == (self.members is None) or (self.members is None) != (
            self.nonmembers is None
        ):
            raise ConfigError(
                "an audit needs --members and --nonmembers, or --data alone to audit the recipe"
            )
