"""Make ribbed-channel.csv anew out of the transcribed tables: `python datasets/build_heat.py
FOLDER`.

FOLDER holds nasa_cr3837_square_duct.csv, han_fig4_46_90deg.csv and han_zhang_lee1991_square.csv, of
the combaero project (MIT). The papers give (e+, R, G); Re, the four-sided Fanning factor and Nu are
made of these and compared with the transcribed ones. Digitised points have a drawn G and the R of a
law, so their friction factor is no measurement and stays empty. Prints size and SHA-256 of the
file, and whether its card agrees.
"""

import argparse
import csv
import hashlib
import sys
import tomllib
from pathlib import Path

from sciforge.heat.correlations.dimensionless import point_of_roughness

HERE = Path(__file__).resolve().parent
FILES = ("nasa_cr3837_square_duct.csv", "han_fig4_46_90deg.csv", "han_zhang_lee1991_square.csv")
RIGS = {
    "NASA_CR-3837_App7.3_p128": "nasa-cr-3837",
    "Han1984_in_Fig4.46": "han-1984",
    "Han1988_in_Fig4.46": "han-1988",
    "HanZhangLee1991_Fig12": "han-zhang-lee-1991",
}
BASIS = "ribbed wall, projected area, smooth diameter, developed, bulk properties, Fanning friction"
HEADER = "rig,kind,Re,Pr,e_D,P_e,alpha_deg,W_H,Nu,f_four_sided,uncertainty"
AGREE = 2e-3  # relative; the transcribed numbers are rounded, Nu 80.0 the most


def rows_of(path: Path) -> list[str]:
    """Return the lines of one transcribed table; raises SystemExit where its own numbers
    disagree.
    """
    found = []
    for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
        e_plus, R, G, e_D, W_H, Pr = (
            float(row[name]) for name in ("e_plus", "R", "G", "e_D", "W_H", "Pr")
        )
        point = point_of_roughness(e_plus, R, G, e_D, W_H, Pr)
        made = {"Re": point.Re, "f_four_sided": point.fanning, "Nu_ribbed": point.nusselt}
        for name, value in made.items():
            if abs(float(row[name]) / value - 1) > AGREE:
                sys.exit(f"{path}: {name} {row[name]} is not {value:g}, which e+, R and G make")
        kind = "tabulated" if row["kind"] == "tabulated" else "digitised"
        place = (row["Pr"], row["e_D"], row["P_e"], row["alpha_deg"], row["W_H"])
        fanning = f"{point.fanning:.5f}" if kind == "tabulated" else ""
        values = (
            f"{point.Re:.0f}",
            *(f"{float(text):g}" for text in place),
            f"{point.nusselt:.2f}",
            fanning,
        )
        found.append(",".join((RIGS[row["source"]], kind, *values, f"{float(row['u_Nu']):g}")))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="with the transcribed tables")
    folder = parser.parse_args().folder
    lines = [
        f"# basis: {BASIS}",
        HEADER,
        *(line for name in FILES for line in rows_of(folder / name)),
    ]
    data = ("\n".join(lines) + "\n").encode()
    card = tomllib.loads((HERE / "ribbed-channel.toml").read_text(encoding="utf-8"))
    (HERE / card["file"]).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    same = digest == card["sha256"]
    print(card["file"], len(data), digest, "as its card says" if same else "NOT what its card says")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
