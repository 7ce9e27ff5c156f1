"""Attack tests of the service's parts: addresses, tables, texts on the page, names (C8 36 to 53)."""

import csv
import http.client
import io
import re

import pytest

from apps.service import addresses
from apps.service.addresses import fetch, is_public
from apps.service.desk import safe_name
from apps.service.errors import UploadRefused, error_kinds, for_strangers
from apps.service.tables import safe_cell, to_csv
from apps.studio import views
from zoomiqa.errors import BackendFailed, ImageTooLarge, ImageUnreadable, OptionInvalid

INSIDE = [
    "127.0.0.1",
    "127.8.9.10",
    "10.0.0.1",
    "172.16.5.5",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.0.192",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "198.18.0.1",
    "::1",
    "::",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "ff02::1",
    "2002:7f00:1::",
    "2002:101:101::",
    "2002:a00:1::",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::7f00:1",
    "2001:0:7f00:1::1",
    "2001:db8::1",
    "2606:4700::5efe:7f00:1",
    "2606:4700::200:5efe:a00:1",
    "not an address",
    "",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
]


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_inside_are_not_public(address):
    """C8 36."""
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1"]
)
def test_public_addresses(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "http://example.org/a.png",
        "ftp://example.org/a.png",
        "https://user:secret@example.org/",
        "https://",
        "//example.org/a.png",
        "https://example.org:99999/",
        "https://exa\nmple.org/",
        "/etc/passwd",
        "gopher://example.org",
    ],
)
def test_only_plain_https(url):
    """C8 39. Nothing is resolved for the others."""
    with pytest.raises(UploadRefused):
        fetch(url, 1000, resolve=lambda *_: pytest.fail("it was resolved"))


@pytest.mark.parametrize("found", [["127.0.0.1"], ["93.184.216.34", "10.0.0.1"], [], ["::ffff:169.254.169.254"]])
def test_a_name_whose_address_is_inside(found):
    """One inside among several is enough: which of them a connection would take is not known."""
    with pytest.raises(UploadRefused, match="public internet"):
        fetch(
            "https://example.org/a.png",
            1000,
            resolve=lambda *_: found,
            connect=lambda *_, **__: pytest.fail("it connected"),
        )


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost"])
def test_other_spellings_of_this_machine(host):
    with pytest.raises(UploadRefused):
        fetch(f"https://{host}/a.png", 1000, connect=lambda *_, **__: pytest.fail("it connected"))


def answer(monkeypatch, pages):
    """Answers in the place of a network: from url path to (status, headers, body); gives the addresses asked."""
    asked = []

    def get(parts, address, limit_bytes, deadline, connect):
        asked.append((parts.hostname, address))
        return pages[parts.path]

    monkeypatch.setattr(addresses, "_get", get)
    return asked


def test_each_redirect_is_checked(monkeypatch):
    """C8 37."""
    asked = answer(monkeypatch, {"/a": (302, {"location": "https://inside.example/b"}, b"")})
    names = {"example.org": ["93.184.216.34"], "inside.example": ["10.0.0.1"]}
    with pytest.raises(UploadRefused, match="public internet"):
        fetch("https://example.org/a", 1000, resolve=lambda host, _: names[host])
    assert asked == [("example.org", "93.184.216.34")]


def test_a_redirect_to_a_file(monkeypatch):
    answer(monkeypatch, {"/a": (302, {"location": "file:///etc/passwd"}, b"")})
    with pytest.raises(UploadRefused, match="plain https"):
        fetch("https://example.org/a", 1000, resolve=lambda *_: ["93.184.216.34"])


def test_redirects_without_end(monkeypatch):
    asked = answer(monkeypatch, {"/a": (301, {"location": "/a"}, b"")})
    with pytest.raises(UploadRefused, match="5 redirects"):
        fetch("https://example.org/a", 1000, resolve=lambda *_: ["93.184.216.34"])
    assert len(asked) == 6


def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch):
    asked = answer(monkeypatch, {"/x/cat.jpg": (200, {}, b"bytes")})
    resolved = iter([["93.184.216.34"], ["127.0.0.1"]])  # a name that changes its mind
    assert fetch("https://example.org/x/cat.jpg", 1000, resolve=lambda *_: next(resolved)) == ("cat.jpg", b"bytes")
    assert asked == [("example.org", "93.184.216.34")]


class FakeSocket:
    """A connection that sends prepared bytes."""

    def __init__(self, data):
        self._data = data

    def makefile(self, *_, **__):
        return io.BytesIO(self._data)

    def sendall(self, _):
        pass

    def settimeout(self, _):
        pass

    def close(self):
        pass


def serve(monkeypatch, data):
    class Context:
        def wrap_socket(self, plain, server_hostname):
            return plain

    monkeypatch.setattr(addresses.ssl, "create_default_context", Context)
    return lambda *_, **__: FakeSocket(data)


def test_a_body_longer_than_the_limit_is_cut(monkeypatch):
    """C8 38: whatever the server says of its length."""
    for head in (b"", b"Content-Length: 5000\r\n"):
        connect = serve(monkeypatch, b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + b"x" * 5000)
        with pytest.raises(ImageTooLarge):
            fetch("https://example.org/a", 1000, resolve=lambda *_: ["93.184.216.34"], connect=connect)
    connect = serve(monkeypatch, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n" + b"x" * 5000)
    assert fetch("https://example.org/a", 1000, resolve=lambda *_: ["93.184.216.34"], connect=connect)[1] == b"x" * 10


def test_a_server_that_talks_nonsense(monkeypatch):
    connect = serve(monkeypatch, b"\x00\x01garbage")
    with pytest.raises(UploadRefused, match="cannot be fetched"):
        fetch("https://example.org/a", 1000, resolve=lambda *_: ["93.184.216.34"], connect=connect)
    assert http.client.HTTPException  # what is behind it is not shown


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\u200b=1", "＝1", "=cmd|' /C calc'!A0", "\n=1"],
)
def test_no_cell_becomes_a_formula(text):
    """C8 51."""
    assert safe_cell(text).startswith("'")
    (row,) = list(csv.reader(io.StringIO(to_csv(("a",), [[text]])), strict=True))[1:]
    assert not row[0].lstrip().startswith(("=", "+", "-", "@"))


def test_numbers_and_words_stay():
    assert [safe_cell(value) for value in (-1.5, 3, None, "plain", "a=b")] == ["-1.5", "3", "", "plain", "a=b"]
    assert to_csv(("a", "b"), [["x,y", 'say "no"']]) == 'a,b\r\n"x,y","say ""no"""\r\n'


EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'\u202e\x1b[31m"


def assessment(words):
    look = {"index": 0, "text": words, "sections": {"summary": words}, "rating": 3.0, "shown_box": None, "findings": []}
    return {
        "rating": 3.0,
        "spread": 0.4,
        "rounds": [look],
        "positive": words,
        "negative": words,
        "assessor": {"name": words},
    }


def test_scripts_in_words_are_inert():
    """C8 48, 52: reasoning, names, errors, reasons and phrases, wherever they are shown."""
    score = {"metric": "m", "kind": "k", "before": 1.0, "after": 2.0, "direction": "higher", "range": [0, None]}
    candidate = {"index": 0, "seed": 1, "strength": 1.0, "rating": 3.0, "consistency": 0.9, "reason": EVIL}
    record = {
        "kept": "restored",
        "reason": EVIL,
        "before": assessment(EVIL),
        "after": assessment(EVIL),
        "candidates": [candidate],
        "scores": [score],
    }
    prompts = {
        "positive": EVIL,
        "negative": EVIL,
        "regional": [{"positive": EVIL, "negative": EVIL}],
        "report": {
            "encoder": "clip",
            "budget_tokens": 75,
            "positive_tokens": 1,
            "negative_tokens": 1,
            "cut": [{"text": EVIL, "reason": EVIL}],
        },
    }
    files = dict.fromkeys(("before", "after", "picture", "all", "sidecar", "report"), "a.png")
    row = {"name": EVIL, "state": "failed", "error": EVIL, "files": files, "base": "b"}
    shown = [
        views.reasoning({0: {"text": EVIL, "box": None}, 1: assessment(EVIL)["rounds"][0]}, True),
        views.rating(assessment(EVIL)),
        views.stage("u", EVIL, (10, 10), [{"box": [1, 1, 5, 5], "look": 2}]),
        views.result(record, "b", files, EVIL, (10, 10)),
        views.sent(prompts),
        views.failure({"code": "ZIQ-101", "message": EVIL}),
        views.batch_table([row]),
    ]
    for html in shown:
        assert not re.search(r"<script|<img src=x|\u202e|\x1b", html), html
        assert "&lt;script&gt;" in html
        for tag in re.findall(r"<[a-z][^>]*>", html):
            assert "onerror" not in re.sub(r'"[^"]*"', "", tag)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\windows\\a.JPG", "a.jpg"),
        ("a/b/c.png", "c.png"),
        ("", "picture"),
        ("..", "picture"),
        (".png", "picture.png"),
        ("x.php", "x-php"),
        ("a.png\0.php", "a-png-php"),
        ("con\r\nSet-Cookie: x.png", "con-Set-Cookie-x.png"),
        ("<script>.png", "script.png"),
        ("ü" * 300 + ".png", "picture.png"),
        ("x" * 300 + ".png", "x" * 48 + ".png"),
        ("-rf.png", "rf.png"),
    ],
)
def test_names_of_files(name, expected):
    """C8 42."""
    assert safe_name(name) == expected


def test_errors_for_strangers_hold_no_paths_and_no_library_text():
    """C8 44."""
    told = for_strangers(ImageUnreadable("'/srv/x/photo.jpg' is not sound", "object at 0x7f00", "see /srv"))
    assert told["message"] == ImageUnreadable.summary
    assert for_strangers(BackendFailed("CUDA at /dev/nvidia0", None, ""))["message"] == BackendFailed.summary
    told = for_strangers(OptionInvalid("strength must lie above 0", 7, "1 is what the guidance asks"))
    assert told["message"].startswith("strength must")
    assert for_strangers(OptionInvalid("no", "/etc/passwd", ""))["message"] == OptionInvalid.summary
    assert for_strangers({"code": "none", "message": "x"})["code"] == "ZIQ-000"


def test_codes_of_the_service_are_its_own():
    kinds = error_kinds()
    assert {code for code in kinds if code.startswith("ZIQ-8")} == {f"ZIQ-80{digit}" for digit in range(7)}
