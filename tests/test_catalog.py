"""Dataset cards and downloads, against a server on 127.0.0.1."""

import hashlib
import http.server
import threading
from pathlib import Path

import pytest

from sciforge import catalog
from sciforge.errors import CheckpointError, ConfigError, DataError

DATA = bytes(range(256)) * 4000  # 1 MB
SHA = hashlib.sha256(DATA).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
    """Serves DATA: /range honours Range, /plain does not, /wrong sends other bytes, /gone is
    404, /cut breaks off.
    """

    asked: list[tuple[str, str | None]] = []
    cuts = 0

    def do_GET(self):
        place, wanted = self.path, self.headers.get("Range")
        self.asked.append((place, wanted))
        if place == "/gone":
            return self.send_error(404)
        body = DATA if place != "/wrong" else DATA[::-1]
        start = (
            int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and "plain" not in place else 0
        )
        if start >= len(body):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        if "cut" in place and type(self).cuts > 0:
            type(self).cuts -= 1
            self.wfile.write(body[start : start + 400_000])
            self.close_connection = True
        else:
            self.wfile.write(body[start:])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    Server.asked, Server.cuts = [], 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of cards and an empty cache; returns a function that writes a card."""
    (tmp_path / "cards").mkdir()
    monkeypatch.setattr(catalog, "datasets_folder", lambda: tmp_path / "cards")
    monkeypatch.setattr(catalog, "WAIT_SECONDS", 0.0)
    monkeypatch.setenv("SCIFORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SCIFORGE_DATA", raising=False)

    def card(name: str = "thing", *urls: str, kind: str = "download", more: str = "") -> Path:
        addresses = ", ".join(f'"{url}"' for url in urls)
        text = (
            f'kind = "{kind}"\nsummary = "s"\nfile = "thing.bin"\nsha256 = "{SHA}"\nbytes ='
            f" {len(DATA)}\n"
        )
        text += (
            'licence = "l"\ncitation = "c"\nreader = "r"\nsplit = "s"\nurls ='
            f" [{addresses}]\n{more}\n"
        )
        (tmp_path / "cards" / f"{name}.toml").write_text(text)
        return tmp_path / "cache"

    return card


def files(folder: Path) -> list[str]:
    return sorted(f.name for f in folder.glob("*")) if folder.exists() else []


def test_download_is_verified_and_cached(place, server):
    cache = place("thing", f"{server}/range")
    assert catalog.fetch("thing").read_bytes() == DATA
    assert files(cache) == ["thing.bin"]
    catalog.fetch("thing")
    assert len(Server.asked) == 1


def test_wrong_bytes_leave_nothing(place, server):
    cache = place("thing", f"{server}/wrong")
    with pytest.raises(
        DataError, match="cannot fetch thing .*other bytes than the card's sha256.*SCIFORGE_DATA"
    ):
        catalog.fetch("thing")
    assert files(cache) == []


def test_a_mirror_takes_over(place, server):
    place("thing", f"{server}/gone", f"{server}/wrong", f"{server}/range")
    assert catalog.fetch("thing").read_bytes() == DATA
    assert [p for p, _ in Server.asked] == ["/gone", "/wrong", "/range"]  # 404 is not asked twice


def test_broken_transfers_continue_where_they_stopped(place, server):
    place("thing", f"{server}/cut")
    Server.cuts = 2
    assert catalog.fetch("thing").read_bytes() == DATA
    starts = [wanted for _, wanted in Server.asked]
    assert (
        starts[0] is None
        and all(start.startswith("bytes=") for start in starts[1:])
        and len(starts) == 3
    )


def test_an_interrupted_session_is_resumed(place, server, monkeypatch):
    cache = place("thing", f"{server}/cut")
    Server.cuts = 1
    monkeypatch.setattr(catalog, "RETRIES", 1)
    with pytest.raises(DataError, match="broke off"):
        catalog.fetch("thing")
    assert files(cache) == [f".thing.bin.{SHA[:8]}.part"]  # never under the final name
    assert catalog.fetch("thing").read_bytes() == DATA
    assert Server.asked[-1][1] not in (None, "bytes=0-")
    assert files(cache) == ["thing.bin"]


def test_a_server_without_ranges_sends_everything_again(place, server):
    cache = place("thing", f"{server}/plain-cut")
    Server.cuts = 1
    assert catalog.fetch("thing").read_bytes() == DATA
    assert len(Server.asked) == 2 and files(cache) == ["thing.bin"]


@pytest.mark.parametrize("left", [b"garbage" * 100, DATA + b"too long"])
def test_a_wrong_remainder_is_dropped(place, server, left):
    cache = place("thing", f"{server}/range")
    cache.mkdir()
    (cache / f".thing.bin.{SHA[:8]}.part").write_bytes(left)
    assert catalog.fetch("thing").read_bytes() == DATA
    assert files(cache) == ["thing.bin"]


def test_a_damaged_file_in_the_cache_is_fetched_again(place, server):
    cache = place("thing", f"{server}/range")
    cache.mkdir()
    (cache / "thing.bin").write_bytes(b"x")
    assert catalog.fetch("thing").read_bytes() == DATA


def test_local_mirror_is_searched_first_and_verified(place, tmp_path, monkeypatch):
    place("thing", "http://127.0.0.1:9/nothing")
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "thing.bin").write_bytes(DATA)
    monkeypatch.setenv("SCIFORGE_DATA", str(tmp_path / "mirror"))
    assert catalog.fetch("thing") == tmp_path / "mirror" / "thing.bin"
    (tmp_path / "mirror" / "thing.bin").write_bytes(DATA[:-1])
    with pytest.raises(DataError, match="mirror's copy"):
        catalog.fetch("thing")


def test_no_network_is_one_line(place, monkeypatch):
    place("thing", "http://127.0.0.1:9/nothing")
    with pytest.raises(DataError, match="cannot fetch thing") as caught:
        catalog.fetch("thing")
    assert "\n" not in str(caught.value)


def test_unknown_names_come_with_the_nearest(place, tmp_path):
    place("thing", "http://127.0.0.1:9/nothing")
    with pytest.raises(ConfigError, match="did you mean 'thing'"):
        catalog.fetch("thin")
    (tmp_path / "cards" / "checkpoints" / "dna-mini").mkdir(parents=True)
    (tmp_path / "cards" / "checkpoints" / "dna-mini" / "checkpoint.json").write_text("{}")
    with pytest.raises(CheckpointError, match="did you mean 'dna-mini'"):
        catalog.locate("dna-min")
    assert catalog.locate("dna-mini") == tmp_path / "cards" / "checkpoints" / "dna-mini"
    assert catalog.locate(tmp_path) == tmp_path


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("sumary = 'x'", "did you mean 'summary'"),
        ("x = = 1", "not TOML"),
        ("source = ''\nsource = ''", "not TOML"),
    ],
)
def test_bad_cards_name_their_file(place, more, said):
    place("thing", "http://127.0.0.1:9/x", more=more)
    with pytest.raises(DataError, match=f"thing.toml: .*{said}"):
        catalog.cards()


def test_a_download_without_digest_is_refused(place, tmp_path):
    place("thing")
    with pytest.raises(DataError, match="needs urls and a sha256"):
        catalog.cards()


@pytest.mark.parametrize("name", sorted(catalog.cards()))
def test_every_card_of_the_project(name):
    card = catalog.cards()[name]
    assert card.licence and card.citation and card.summary and card.reader and card.split
    if card.kind == "bundled":
        path = catalog.fetch(name)
        assert path.stat().st_size == card.bytes and card.source
    if card.kind == "download":
        assert all(url.startswith("https://") for url in card.urls)


def test_bundled_data_stay_small():
    assert (
        sum(card.bytes for card in catalog.cards().values() if card.kind == "bundled") <= 10_000_000
    )
