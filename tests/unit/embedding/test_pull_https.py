"""Pulling over HTTPS from a publisher on this machine: several files, ranges, and every fault."""

import errno
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from imageclust.embedding import ModelCard, ModelRegistry, open_embedder, open_text, pull
from imageclust.embedding.cards import CardFile
from imageclust.errors import CorruptData, Permanent, StoreUnavailable

from tests.standins.tiny_towers import make_towers


@dataclass
class Publisher:
    """Serves files by name and keeps what it was asked; each fault is for the named file.

    ``breaks`` ends an answer after so many bytes, without closing it properly; ``status`` answers
    with that instead; ``no_ranges`` sends the whole file whatever is asked.
    """

    files: dict[str, bytes]
    url: str = ""
    breaks: dict[str, int] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    no_ranges: bool = False
    asked: list[tuple[str, str]] = field(default_factory=list)


def handler_of(publisher: Publisher) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.removeprefix("/")
            publisher.asked.append((name, self.headers.get("Range", "")))
            if name in publisher.status:
                self.send_error(publisher.status[name])
                return
            data = publisher.files[name]
            start = 0
            if "Range" in self.headers and not publisher.no_ranges:
                start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            else:
                self.send_response(200)
            rest = data[start:]
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[: publisher.breaks.get(name, len(rest))])

        def log_message(self, *_: Any) -> None:
            """Nothing on standard error."""

    return Handler


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that signs itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "publisher")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def publisher(
    tmp_path: Path, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Publisher]:
    make_towers(tmp_path / "made")
    files = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    publisher = Publisher(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(publisher))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    publisher.url = f"https://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield publisher
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def card(publisher: Publisher) -> ModelCard:
    """What a catalogue says of the publisher's model: addresses, digests, sizes."""
    card = ModelCard.parse(publisher.files["tiny_towers.json"])
    assert card.text is not None

    def there(file: CardFile) -> CardFile:
        return replace(file, url=f"{publisher.url}/{file.file}")

    text = replace(
        card.text, weights=there(card.text.weights), tokenizer=there(card.text.tokenizer)
    )
    return replace(card, url=f"{publisher.url}/{card.file}", text=text)


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    return ModelRegistry(tmp_path / "models")


def test_every_file_comes_and_works(
    publisher: Publisher, card: ModelCard, registry: ModelRegistry
) -> None:
    said: list[str] = []
    pull("tiny_towers", registry=registry, known=(card,), say=said.append)
    assert len(said) == 1
    assert "in 3 files" in said[0]
    assert card.url in said[0]
    assert "MIT" in said[0]
    assert [name for name, _ in publisher.asked] == [file.file for file in card.files]
    (folder,) = registry.directories
    assert {path.name for path in folder.iterdir()} == {
        "tiny_towers.json", *(file.file for file in card.files)
    }  # fmt: skip
    vector = open_text("tiny_towers", registry=registry).embed(["red"])
    assert vector.shape == (1, open_embedder("tiny_towers", registry=registry).dimension)
    pull("tiny_towers", registry=registry, known=(card,), say=said.append)
    assert "already" in said[1]
    assert len(publisher.asked) == 3


@pytest.mark.parametrize("no_ranges", [False, True])
def test_a_broken_download_goes_on_where_it_stopped(
    publisher: Publisher, card: ModelCard, registry: ModelRegistry, no_ranges: bool
) -> None:
    publisher.breaks["tiny_towers.text.onnx"] = 100
    with pytest.raises(StoreUnavailable, match="same command again"):
        pull("tiny_towers", registry=registry, known=(card,))
    publisher.breaks.clear()
    publisher.no_ranges = no_ranges
    said: list[str] = []
    pull("tiny_towers", registry=registry, known=(card,), say=said.append)
    assert "resumed at 0.0 MB" in said[0]
    assert publisher.asked == [
        ("tiny_towers.onnx", ""),
        ("tiny_towers.text.onnx", ""),
        # The pictures' tower is whole and is not asked for again.
        ("tiny_towers.text.onnx", "bytes=100-"),
        ("tiny_towers.tokenizer.json", ""),
    ]
    open_text("tiny_towers", registry=registry).embed(["red"])


def test_a_model_without_its_text_gets_it(
    publisher: Publisher, card: ModelCard, registry: ModelRegistry
) -> None:
    pull("tiny_towers", registry=registry, known=(card,))
    registry.text_folder("tiny_towers").joinpath("tiny_towers.text.onnx").unlink()
    publisher.asked.clear()
    pull("tiny_towers", registry=registry, known=(card,))
    assert publisher.asked == [("tiny_towers.text.onnx", "")]


@pytest.mark.parametrize("file", [0, 1, 2])
def test_other_bytes_are_thrown_away_and_nothing_is_installed(
    publisher: Publisher, card: ModelCard, registry: ModelRegistry, file: int
) -> None:
    name = card.files[file].file
    publisher.files[name] = b"x" + publisher.files[name][1:]
    with pytest.raises(CorruptData, match=rf"digest of {name} .*thrown away"):
        pull("tiny_towers", registry=registry, known=(card,))
    (folder,) = registry.directories
    assert not (folder / "tiny_towers.json").exists()
    assert not (folder / name).exists()
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_file_that_the_publisher_has_no_more(
    publisher: Publisher, card: ModelCard, registry: ModelRegistry, status: int
) -> None:
    publisher.status["tiny_towers.onnx"] = status
    with pytest.raises(Permanent, match=rf"tiny_towers\.onnx .*answers {status} .*'builtin'"):
        pull("tiny_towers", registry=registry, known=(card,))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_publisher_that_is_busy(
    publisher: Publisher, card: ModelCard, registry: ModelRegistry, status: int
) -> None:
    publisher.status["tiny_towers.tokenizer.json"] = status
    with pytest.raises(StoreUnavailable, match=rf"answers {status} .*same command again"):
        pull("tiny_towers", registry=registry, known=(card,))
    publisher.status.clear()
    pull("tiny_towers", registry=registry, known=(card,))


def test_without_a_network(card: ModelCard, registry: ModelRegistry) -> None:
    gone = replace(card, url="https://127.0.0.1:1/tiny_towers.onnx")
    with pytest.raises(StoreUnavailable, match=r"refused.*'builtin'"):
        pull("tiny_towers", registry=registry, known=(gone,))


def test_a_publisher_that_cannot_prove_who_it_is(
    card: ModelCard, registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(StoreUnavailable, match="certificate"):
        pull("tiny_towers", registry=registry, known=(card,))


def test_a_full_disk(
    card: ModelCard, registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    class Full:
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *_: object) -> None:
            self._stream.close()

        def write(self, block: bytes) -> int:
            self._stream.write(block[:50])
            raise OSError(errno.ENOSPC, "No space left on device")

        def __getattr__(self, name: str) -> Any:
            return getattr(self._stream, name)

    def full(path: Path, mode: str = "r", **options: Any) -> Any:
        stream = opened(path, mode, **options)
        return Full(stream) if mode == "ab" else stream

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        with pytest.raises(Permanent, match=r"the disk is full, 0\.0 MB are needed"):
            pull("tiny_towers", registry=registry, known=(card,))
    # What had room is kept.
    said: list[str] = []
    pull("tiny_towers", registry=registry, known=(card,), say=said.append)
    assert "resumed" in said[0]
