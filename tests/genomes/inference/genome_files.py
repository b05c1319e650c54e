"""Small genomes on disk, and what a checkpoint says of sequences as text."""

from sciforge.genomes.data.sequences import as_letters, encode, reverse_complement

WINDOW, PLACE, MOTIF = 60, 20, "TATAATGG"


def letters(rng, length):
    return "".join(rng.choice(list("ACGT"), length))


def codes(text):
    return encode(text.encode())


def turned(text):
    return as_letters(reverse_complement(codes(text)))


def changed(text, place, base):
    return text[:place] + base + text[place + len(base) :]


def write(path, contigs):
    path.write_text("".join(f">{name}\n{bases}\n" for name, bases in contigs.items()))
    return path


def rows_of(path):
    lines = path.read_text().splitlines()
    return [line.split("\t") for line in lines if not line.startswith(("#", "track"))]


def yes(predictor, sequences):
    return predictor.outputs({"bases": codes(s)} for s in sequences)["probability"][:, 1]
