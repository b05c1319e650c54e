"""Tables of measurements: hostile input is one line with its place, units make groups, splits
leak nothing, laws fill boxes.
"""

import gzip
import warnings
from pathlib import Path

import numpy as np
import pytest

from sciforge import catalog
from sciforge.core.data.store import Store, prepare
from sciforge.core.files.atomic import sha256
from sciforge.errors import ConfigError, DataError, SciforgeError
from sciforge.heat.data.measurements import Measurements
from sciforge.heat.data.readers import read_table

BASIS = "# basis: ribbed wall, projected area, smooth diameter\n"
HEADER = "Re,Pr,e_D,P_e,alpha_deg,W_H,Nu"
ROW = "30000,0.7,0.0625,10,60,1,150"
PARTS = 2e-3  # of printed numbers


def wrote(folder: Path, text: str, name: str = "rig.csv") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def read(folder: Path, text: str, *columns: str, **options):
    return read_table(wrote(folder, text), columns, warn=options.pop("warn", False), **options)


# --- the bundled points ---


def test_bundled_points_are_the_published_ones():
    table = read_table(catalog.fetch("ribbed-channel"))
    assert len(table) == 83 and set(table.rig) == {
        "nasa-cr-3837",
        "han-1984",
        "han-1988",
        "han-zhang-lee-1991",
    }
    assert table.basis == "ribbed wall, projected area, smooth diameter"
    nasa = np.array(table.rig) == "nasa-cr-3837"
    assert (
        nasa.sum() == 33
        and np.isfinite(table.fanning[nasa]).all()
        and np.isnan(table.fanning[~nasa]).all()
    )
    # quoted elsewhere
    assert {8314, 16544, 6281, 6385, 6571, 9637, 52257} <= set(table.points["Re"][nasa].astype(int))
    first = table.nu[np.flatnonzero(table.points["Re"] == 8314)[0]]
    assert abs(first / 62.6 - 1) < PARTS and np.isfinite(table.uncertainty).all()


# --- columns ---


def test_columns_by_alias_and_by_name(tmp_path):
    text = BASIS + "REYNOLDS,Pr,e/D,P/e,alpha,W/H,mine,Lab\n" + ROW + ",A\n"
    table = read(tmp_path, text, "Nu=mine")
    assert (
        table.nu.tolist() == [150]
        and table.rig == ("A",)
        and table.points["alpha_deg"].tolist() == [60]
    )
    assert read(tmp_path, BASIS + f"{HEADER}\n{ROW}\n").rig == ("rig",)  # the file's name
    assert read(tmp_path, "# rig: B\n" + BASIS + f"{HEADER}\n{ROW}\n").rig == ("B",)


def test_semicolons_tabs_bom_gzip_and_spreadsheet_remarks(tmp_path):
    expected = read(tmp_path, BASIS + f"{HEADER}\n{ROW}\n")
    text = BASIS.strip() + ",,,\n" + f"{HEADER}\n\n{ROW}\n"
    for variant in (
        text.replace(HEADER, HEADER.replace(",", ";")).replace(ROW, ROW.replace(",", ";")),
        "\ufeff" + text,
    ):
        assert read(tmp_path, variant).nu.tolist() == expected.nu.tolist()
    (tmp_path / "a.tsv.gz").write_bytes(
        gzip.compress((BASIS + f"{HEADER}\n{ROW}".replace(",", "\t")).encode())
    )
    assert read_table(tmp_path / "a.tsv.gz", warn=False).nu.tolist() == [150]
    quoted = f'"{BASIS.strip()}",,,\r\n{HEADER}\r\n{ROW}\r\n'
    assert read(tmp_path, quoted).line.tolist() == [3]


def test_dimensional_columns_make_the_groups(tmp_path):
    text = (
        BASIS
        + "velocity [m/s],viscosity [mm^2/s],Pr,width [mm],height [cm],e [mm],pitch [mm],angle"
        " [rad],h [W/(m2 K)],k [W/m/K]\n"
    )
    text += "10,20,0.7,50,5,3.125,31.25,1.0471975512,60,0.025\n"
    table = read(tmp_path, text)
    expected = {"Re": 25000, "Pr": 0.7, "e_D": 0.0625, "P_e": 10, "alpha_deg": 60, "W_H": 1}
    assert {name: column[0] for name, column in table.points.items()} == pytest.approx(expected)
    assert table.nu[0] == pytest.approx(60 * 0.05 / 0.025)


def test_a_fluid_and_its_temperature_give_viscosity_and_prandtl(tmp_path):
    pytest.importorskip("CoolProp", reason="CoolProp is not installed")
    pytest.importorskip("pint", reason="pint is not installed")
    text = (
        "# fluid: Air\n"
        + BASIS
        + "velocity [m/s],D [mm],T [degC],pressure [bar],e_D,P_e,alpha_deg,W_H,Nu\n"
    )
    table = read(tmp_path, text + "10,50,26.85,30,0.0625,10,60,1,150\n")
    assert table.points["Pr"][0] == pytest.approx(0.729, abs=5e-4)
    assert 8e5 < table.points["Re"][0] < 1.05e6  # 35 kg/m3, 1.9e-5 Pa s
    with pytest.raises(DataError, match="rig.csv: .*Aire"):
        read(
            tmp_path,
            text.replace("fluid: Air", "fluid: Aire") + "10,50,26.85,30,0.0625,10,60,1,150\n",
        )


def test_a_contradiction_between_columns_is_told(tmp_path):
    pytest.importorskip("pint", reason="pint is not installed")
    text = BASIS + f"{HEADER},width [mm],height [mm]\n{ROW},20,40\n"
    assert any(
        "W_H differs from width, height by up to 50%" in note for note in read(tmp_path, text).notes
    )


def test_friction_factors_are_fannings(tmp_path):
    head, row = f"{HEADER},FRICTION\n", f"{ROW},0.06\n"
    assert read(tmp_path, BASIS + head.replace("FRICTION", "darcy") + row).fanning.tolist() == [
        0.015
    ]
    assert read(
        tmp_path, BASIS + head.replace("FRICTION", "f_four_sided") + row
    ).fanning.tolist() == [0.06]
    with pytest.raises(
        DataError, match="rig.csv:2: a friction factor f may be Fanning's or Darcy's"
    ):
        read(tmp_path, BASIS + head.replace("FRICTION", "f") + row)
    darcy = read(
        tmp_path, BASIS.strip() + ", Darcy friction\n" + head.replace("FRICTION", "f") + row
    )
    assert darcy.fanning.tolist() == [0.015] and "darcy" not in darcy.basis
    assert np.isnan(read(tmp_path, BASIS + head.replace("FRICTION", "note") + row).fanning).all()


def test_smooth_walls_need_no_ribs(tmp_path):
    assert read(tmp_path, BASIS + "Re,Pr,Nu\n1e4,0.7,30\n").points["e_D"].tolist() == [0]
    table = read(tmp_path, BASIS + f"{HEADER}\n{ROW}\n1e4,0.7,0,,,1,30\n")
    assert table.points["alpha_deg"].tolist() == [60, 90]
    with pytest.warns(UserWarning) as caught:
        read(tmp_path, BASIS + "Re,Pr,e_D,Nu\n1e4,0.7,0.06,90\n", warn=True)
    assert any("no column P_e, alpha_deg, W_H; 10, 90, 1 taken" in str(w.message) for w in caught)


def test_a_table_to_predict_needs_neither_nu_nor_basis(tmp_path):
    table = read(tmp_path, "Re,Pr\n1e4,0.7\n", measured=False)
    assert np.isnan(table.nu).all() and table.basis == ""


# --- hostile input ---

WRONG = {
    "": "an empty table",
    BASIS: "an empty table",
    BASIS + HEADER: ":2: a header and no rows",
    BASIS + ROW: ":2: no header",
    BASIS + "Re,Re,Nu\n1,1,1": ":2: the header names 'Re' twice",
    BASIS + "Re,Nu\n1e4,30": "no column Pr",
    BASIS + "Pr,Nu\n0.7,30": "no column Re .*--columns Re=THEIRS",
    BASIS + "Re,Pr,Nusslt\n1e4,0.7,30": ":2: no column Nu .*Nusslt",
    BASIS + "Re,Pr,Nu,Nu_r\n1e4,0.7,30,31": (
        ":2: 2 columns may be Nu .Nu, Nu_r.; choose with --columns Nu=Nu"
    ),
    BASIS + "Re,Pr,P_e,Nu\n1e4,0.7,10,30": "ribs without a height",
    BASIS + "Re [furlong],Pr,Nu\n1e4,0.7,30": ":2: Re cannot be in 'furlong'",
    BASIS + "velocity [m/z],Pr,Nu\n1e4,0.7,30": ":2: no unit 'm/z'",
    BASIS + "velocity [10**10**10],Pr,Nu\n1e4,0.7,30": ":2: no unit",
    BASIS + "velocity,Pr,Nu\n1e4,0.7,30": r":2: velocity has no unit; .*\[m/s\]",
    BASIS + "velocity [K],Pr,Nu\n1e4,0.7,30": ":2: velocity cannot be in 'K'",
    BASIS + f"{HEADER}\n{ROW},9,9": ":3: 9 cells where the header has 7",
    BASIS + f"{HEADER}\n30000,0,7,0,0625,10,60,1,150": ":3: .*decimals take a point",
    BASIS + f"{HEADER}\n30000,0.7": ":3: 2 cells where the header has 7",
    BASIS + "Re;Pr;Nu\n10000;0,7;30": ":3: Pr is '0,7', no number; write decimals with a point",
    BASIS + f"{HEADER}\n" + ROW.replace("30000", "many"): ":3: Re is 'many', no number",
    BASIS + f"{HEADER}\n" + ROW.replace("30000", "-3e4"): ":3: Re is -30000; it must be above 0",
    BASIS + f"{HEADER}\n" + ROW.replace("30000", "0"): ":3: Re is 0; it must be above 0",
    BASIS + f"{HEADER}\n" + ROW.replace("30000", ""): ":3: Re is missing",
    BASIS
    + f"{HEADER}\n"
    + ROW.replace(",60,", ",120,"): ":3: alpha_deg is 120; it must be at most 90: .*V rib",
    BASIS + f"{HEADER}\n" + ROW.replace(",60,", ",0,"): ":3: alpha_deg is 0; it must be above 0",
    BASIS + f"{HEADER}\n" + ROW.replace(",60,", ",1.05,"): "radians",
    BASIS + f"{HEADER}\n" + ROW.replace("0.0625", "0.6"): ":3: e_D is 0.6; it must be at most 0.5",
    BASIS + f"{HEADER}\n" + ROW.replace(",150", ",0"): ":3: Nu is 0",
    BASIS + f"{HEADER}\n" + ROW.replace(",150", ",inf"): ":3: Nu is 'inf', not finite",
    BASIS + f"{HEADER}\n" + ROW.replace(",150", ",nan"): ":3: Nu is 'nan', not finite",
    BASIS + f"{HEADER}\n" + ROW.replace(",150", ","): ":3: Nu is missing",
    BASIS + f"{HEADER},uncertainty\n{ROW},6.8": (
        r":3: uncertainty is 6.8, not a fraction .*uncertainty \[%\]"
    ),
    BASIS + f"{HEADER},uncertainty\n{ROW},-0.1": ":3: uncertainty is -0.1",
    BASIS + f"{HEADER},fanning\n{ROW},-0.1": ":3: the friction factor is -0.1",
    BASIS + "D [m],rib_height [m],Re,Pr,Nu\n0,0.1,1e4,0.7,30": (
        ":3: diameter is 0 m; it must be above 0"
    ),
    f"{HEADER}\n{ROW}": (
        "no basis of Nu; put '# basis: ribbed wall, projected area, smooth diameter'"
    ),
    f"# basis: ribbed wall\n{HEADER}\n{ROW}": (
        "basis 'ribbed wall' does not state the area and diameter"
    ),
}


@pytest.mark.parametrize("text", WRONG, ids=WRONG.values())
def test_hostile_tables_are_one_line(tmp_path, text):
    if "[" in text:
        pytest.importorskip("pint", reason="pint is not installed")
    with (
        warnings.catch_warnings(),
        pytest.raises(SciforgeError, match=f"rig.csv.*{WRONG[text]}") as caught,
    ):
        warnings.simplefilter("error")
        read(tmp_path, text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_hostile_files_and_options_are_one_line(tmp_path):
    good = BASIS + f"{HEADER}\n{ROW}\n"
    (tmp_path / "latin.csv").write_bytes(b"Re,angle [\xb0],Nu\n1,1,1\n")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(good.encode())[:-9])
    for name, said in (
        ("latin.csv", "not UTF-8"),
        ("cut.csv.gz", "not a whole gzip"),
        ("none.csv", "No such file"),
    ):
        with pytest.raises(DataError, match=said):
            read_table(tmp_path / name)
    with pytest.raises(ConfigError, match="ending '.xlsx'"):
        read_table(wrote(tmp_path, good, "a.xlsx"))
    for columns, said in (
        (("Nu",), "give OURS=THEIRS"),
        (("pitch=Nu",), "no column 'pitch' .*did you mean 'rib_pitch'"),
        (("Nu=Nuu",), "no column 'Nuu' in the header; did you mean 'Nu'"),
        (("Nu=Nu", "Nu=Re"), "names it twice"),
    ):
        with pytest.raises(SciforgeError, match=said):
            read(tmp_path, good, *columns)
    with pytest.raises(DataError, match="its basis is ribbed wall.* and average wall"):
        read(tmp_path, good, basis="average wall, projected area, smooth diameter")


def test_bad_rows_can_be_left_out(tmp_path):
    told = []
    text = BASIS + f"{HEADER}\n{ROW}\nx{ROW}\n-{ROW}\n1,2\n{ROW.replace('30000', '20000')}\n"
    table = read(tmp_path, text, on_reject=told.append)
    assert table.points["Re"].tolist() == [30000, 20000] and table.line.tolist() == [3, 7]
    assert sorted(reject.line for reject in told) == [4, 5, 6]


def test_what_the_data_cannot_tell_is_a_warning(tmp_path):
    with pytest.warns(UserWarning) as caught:
        read(tmp_path, BASIS + f"{HEADER}\n{ROW}\n{ROW}\n{ROW}1\n20000{ROW[5:]}\n", warn=True)
    said = [str(w.message) for w in caught]
    assert len(said) == 2
    assert "2 points repeat another of the same rig, 1 of them with the same Nu too" in said[0]
    assert "e_D, P_e, alpha_deg, W_H never change" in said[1]
    with pytest.warns(UserWarning, match="a single point"):
        read(tmp_path, BASIS + f"{HEADER}\n{ROW}\n", warn=True)


# --- preparing ---


def made(folder: Path, *files: Path, **options) -> Store:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = folder / f"store-{len(list(folder.iterdir()))}"
        return prepare(
            Measurements(files=files or (catalog.fetch("ribbed-channel"),), **options), out
        )


@pytest.mark.parametrize(
    ("options", "column", "test"),
    [
        ({"split": "angle", "held": ("45",)}, "alpha_deg", lambda x: x == 45),
        ({"split": "reynolds", "held": ("45000",)}, "Re", lambda x: x > 45000),
    ],
)
def test_splits_by_what_is_held(tmp_path, options, column, test):
    store = made(tmp_path, **options)
    values, split = store.column(column), store.column("split")
    assert ((split == 2) == test(values)).all() and (split[~test(values)] == 0).all()
    low, high = store.meta["ranges"][column]
    assert low == values[split == 0].min() and high == values[split == 0].max()


def test_a_gap_between_two_reynolds_numbers_is_in_no_split(tmp_path):
    store = made(tmp_path, split="reynolds", held=("30000", "45000"))
    Re, split = store.column("Re"), store.column("split")
    assert Re[split == 0].max() < 30000 and Re[split == 2].min() > 45000 and (split == -1).any()


def test_random_splits_keep_repeats_together(tmp_path):
    rows = [f"{1000 * (i // 3 + 5)},0.7,0.06,10,60,1,{100 + i}" for i in range(90)]
    file = wrote(tmp_path, BASIS + "\n".join([HEADER, *rows]))
    store = made(tmp_path, file, shares=(0.6, 0.2, 0.2))
    split = store.column("split").reshape(30, 3)
    assert (split == split[:, :1]).all() and store.meta["counts"] == {
        "train": 54,
        "validation": 18,
        "test": 18,
    }
    again, other = (
        made(tmp_path, file, shares=(0.6, 0.2, 0.2)),
        made(tmp_path, file, shares=(0.6, 0.2, 0.2), seed=1),
    )
    assert (again.column("split") == store.column("split")).all() and (
        other.column("split") != store.column("split")
    ).any()


def test_rigs_of_several_files_and_given_splits(tmp_path):
    first = wrote(tmp_path, "# rig: A\n" + BASIS + f"{HEADER},split\n{ROW},train\n", "a.csv")
    second = wrote(tmp_path, "# rig: B\n" + BASIS + f"{HEADER},split\n{ROW},TEST\n", "b.csv")
    for options in ({"split": "given"}, {"split": "rig", "held": ("B",)}):
        store = made(tmp_path, first, second, **options)
        assert store.column("split").tolist() == [0, 2] and store.meta["rigs"] == {"A": 1, "B": 1}
    third = wrote(tmp_path, BASIS.replace("ribbed", "average") + f"{HEADER}\n{ROW}\n", "c.csv")
    with pytest.raises(DataError, match="differ in the basis"):
        made(tmp_path, first, third)
    with pytest.raises(DataError, match="b.csv:4: split 'tst' is not known; did you mean 'test'"):
        made(
            tmp_path,
            first,
            wrote(tmp_path, second.read_text().replace("TEST", "tst"), "b.csv"),
            split="given",
        )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"split": "angle"}, "held says what the test is"),
        ({"held": ("45",)}, "give none with the split 'random'"),
        ({"split": "angle", "held": ("50",)}, "no rib angle 50 .*known: 30, 45, 60, 75, 90"),
        ({"split": "rig", "held": ("nasa-cr-387",)}, "did you mean 'nasa-cr-3837'"),
        ({"split": "reynolds", "held": ("6e4", "3e4")}, "the lower and the upper"),
        ({"split": "reynolds", "held": ("x",)}, "no positive number"),
        ({"split": "reynolds", "held": ("100",)}, "no point is in training"),
        ({"shares": (0.5, 0.5, 0.5)}, "add up to 1"),
        ({"split": "angles"}, "split"),
    ],
)
def test_impossible_splits_are_one_line(tmp_path, options, said):
    with pytest.raises(SciforgeError, match=said) as caught:
        made(tmp_path, **options)
    assert "\n" not in str(caught.value)


def test_one_point_is_for_training(tmp_path):
    store = made(tmp_path, wrote(tmp_path, BASIS + f"{HEADER}\n{ROW}\n"))
    assert (
        store.meta["counts"] == {"train": 1, "validation": 0, "test": 0}
        and store[0]["value"] == 150.0
    )


def test_stores_are_whole_after_the_split_is_rewritten(tmp_path):
    store = made(tmp_path)
    assert all(sha256(store.path / name) == digest for name, digest in store.digests().items())
    assert len(Store.open(store.path)) == 83
