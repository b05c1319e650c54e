"""Write the model card (README.md) of every bundled checkpoint anew: `python
datasets/build_cards.py`.

A card is made of what lies in the checkpoint's folder. What the checkpoint learnt from stands here,
for the stores are not bundled.
"""

from collections.abc import Mapping

from sciforge import catalog
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.provenance import model_card

OPEN = "The data of INSDC and NCBI RefSeq are unrestricted"
BACTERIA = (
    {
        "name": "Vibrio cholerae N16961",
        "licence": OPEN,
        "citation": "Heidelberg et al., Nature 406, 477 (2000)",
    },
    {"name": "Klebsiella pneumoniae MGH78578", "licence": OPEN, "citation": "GenBank CP000647"},
)
MOSES = {
    "licence": "MIT (molsets)",
    "citation": "Polykovskiy et al., Front. Pharmacol. 11, 565644 (2020)",
}
MOLECULES = (
    {"name": "MOSES train, every 56th", **MOSES},
    {
        "name": "QM9 structures, every 18th",
        "licence": "CC0",
        "citation": "Ramakrishnan et al., Sci. Data 1, 140022 (2014)",
    },
    {
        "name": "Tox21 structures, without labels",
        "licence": "US government work",
        "citation": "Huang et al., Front. Environ. Sci. 3, 85 (2016)",
    },
)
CAMPAIGNS = (
    {
        "name": "campaigns drawn from published correlations",
        "licence": "Apache-2.0, computed by this project",
        "citation": "the papers that sciforge/heat/correlations/library.py names",
    },
)
ENGLISH = (
    {
        "name": "107 articles of Wikipedia, as gensim carries them",
        "licence": "CC BY-SA",
        "citation": "Wikipedia",
    },
    {
        "name": "Australian news, as gensim carries them",
        "licence": "for research; not shipped",
        "citation": "Lee, Pincombe & Welsh, CogSci 27 (2005)",
    },
    {
        "name": "posts of 20 newsgroups, as gensim carries them",
        "licence": "for research; not shipped",
        "citation": "Lang, ICML 1995",
    },
)
# Checkpoint -> names of dataset cards, or what no card describes.
SOURCES = {
    "modern-mini-english": ("austen-novels", *ENGLISH),
    "dna-bert-mini": ("yeast-genome", *BACTERIA, "leptospira-kirschneri"),
    "molecules-encoder-mini": MOLECULES,
    "molecules-mini": ({"name": "MOSES train, every third", **MOSES},),
    "nusselt-ribbed": CAMPAIGNS,
    "nusselt-smooth": CAMPAIGNS,
    "nusselt-tubes": CAMPAIGNS,
    "potential-mini": ("xtb-small",),
    "vit-mini": ("fashion-mnist-train-images",),
}


def described(source: str | Mapping[str, str]) -> Mapping[str, str]:
    """Return name, licence and citation of a source."""
    if not isinstance(source, str):
        return source
    found = catalog.cards()[source]
    return {"name": source, "licence": found.licence, "citation": found.citation}


def main() -> None:
    for name in catalog.checkpoint_names():
        made = Checkpoint.open(catalog.locate(name))
        print(
            model_card.write(
                made, licence="apache-2.0", sources=[described(source) for source in SOURCES[name]]
            )
        )


if __name__ == "__main__":
    main()
