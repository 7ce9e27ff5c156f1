"""Weights: what is read, what is refused and why, and the way to safetensors."""

from __future__ import annotations

import errno
import hashlib
import http.server
import importlib
import json
import os
import pickle
import shlex
import threading
import zipfile

import pytest

from restore_bridge import weights
from restore_bridge.cli import main
from zoomiqa import files
from zoomiqa.errors import (
    OptionInvalid,
    OutputFailed,
    OutputWouldOverwrite,
    WeightsDamaged,
    WeightsMissing,
    WeightsRefused,
    WeightsUnsuitable,
)

torch = pytest.importorskip("torch", reason="weights are read with torch (extra diffusion)")
safetensors_torch = pytest.importorskip("safetensors.torch", reason="extra diffusion")


def tensors():
    return {"conv.weight": torch.arange(12.0).reshape(3, 4), "conv.bias": torch.ones(3, dtype=torch.float16)}


@pytest.fixture
def safe(tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors_torch.save_file(tensors(), path)
    return path


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path


def same(left, right):
    return left.keys() == right.keys() and all(
        torch.equal(left[name], right[name]) and left[name].dtype == right[name].dtype for name in left
    )


# What is read


def test_safetensors_open_without_a_flag(safe):
    assert weights.resolve(safe) == weights.resolve(str(safe)) == safe
    assert same(weights.load_state_dict(safe), tensors())
    assert weights.sha256_of(safe) == hashlib.sha256(safe.read_bytes()).hexdigest()


def test_home_is_expanded(safe, monkeypatch):
    monkeypatch.setenv("HOME", str(safe.parent))
    assert weights.resolve("~/model.safetensors") == safe


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: inner,
        lambda inner: {"state_dict": inner, "epoch": 3, "lr": 0.1},
        lambda inner: {"params": {"conv.weight": torch.zeros(1)}, "params_ema": inner},
        lambda inner: {"params": inner},
        lambda inner: {"state_dict": {"params_ema": inner}},
        lambda inner: {"state_dict": {f"module.{name}": value for name, value in inner.items()}},
        lambda inner: {f"module.module.{name}": value for name, value in inner.items()},
        lambda inner: {**inner, "step": 7},
    ],
)
@pytest.mark.parametrize("old_format", [False, True])
def test_training_checkpoints_are_opened_up(tmp_path, wrap, old_format):
    path = saved(tmp_path / "model.ckpt", wrap(tensors()), _use_new_zipfile_serialization=not old_format)
    assert same(weights.load_state_dict(path, allow_pickle=True), tensors())


def test_only_a_common_prefix_is_taken_off(tmp_path):
    content = {"module.a": torch.ones(1), "b": torch.ones(1)}
    path = saved(tmp_path / "model.pth", content)
    assert weights.load_state_dict(path, allow_pickle=True).keys() == content.keys()


# What is refused


@pytest.mark.parametrize("name", ["model.pth", "model.ckpt", "model.pt", "model.bin", "model.safetensors"])
@pytest.mark.parametrize("old_format", [False, True])
def test_a_pickle_is_told_by_its_content_and_refused(tmp_path, name, old_format):
    path = saved(tmp_path / name, tensors(), _use_new_zipfile_serialization=not old_format)
    for call in (weights.resolve, weights.load_state_dict):
        with pytest.raises(WeightsRefused, match=r"convert it once: restore-bridge weights convert .*--allow-pickle"):
            call(path)
    assert weights.resolve(path, allow_pickle=True) == path


@pytest.mark.parametrize("name", ["my model.ckpt", "odd:.pth", "x" * 120 + ".ckpt", "line\nbreak.pth"])
def test_the_advice_can_be_copied_or_says_less(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / name, tensors())
    with pytest.raises(WeightsRefused) as caught:
        weights.resolve(name)
    advice = str(caught.value).partition("weights convert ")[2]
    source, target, flag = shlex.split(advice)
    assert source in (name, "IN")
    assert target.endswith(".safetensors")
    assert flag == "--allow-pickle"


def test_safetensors_under_a_pickles_name_need_no_flag(safe):
    renamed = safe.rename(safe.with_name("model.ckpt"))
    assert same(weights.load_state_dict(renamed), tensors())


class Attack:
    """Writes a file when unpickled by an unrestricted reader."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (os.mkdir, (self.target,))


@pytest.mark.parametrize("old_format", [False, True])
def test_a_malicious_pickle_is_not_run_even_with_the_flag(tmp_path, old_format):
    """C8 31 and 32: nothing is run, the message names what was found, and there is no second attempt."""
    marker = tmp_path / "it-ran"
    path = saved(
        tmp_path / "evil.pth",
        {"a": torch.ones(1), "x": Attack(str(marker))},
        _use_new_zipfile_serialization=not old_format,
    )
    with pytest.raises(WeightsRefused, match="mkdir"):
        weights.load_state_dict(path, allow_pickle=True)
    assert not marker.exists()
    plain = tmp_path / "evil.pt"
    plain.write_bytes(pickle.dumps(Attack(str(marker))))
    with pytest.raises((WeightsRefused, WeightsDamaged)):
        weights.load_state_dict(plain, allow_pickle=True)
    assert not marker.exists()


class Trainer:
    """An object that a trainer leaves in its checkpoints."""


def test_a_pickle_with_foreign_objects_names_them(tmp_path):
    path = saved(tmp_path / "model.ckpt", {"state_dict": tensors(), "trainer": Trainer()})
    with pytest.raises(WeightsRefused, match="Trainer"):
        weights.load_state_dict(path, allow_pickle=True)


def test_a_whole_model_is_no_state_dict(tmp_path):
    path = saved(tmp_path / "model.pt", torch.nn.Linear(2, 2))
    with pytest.raises(WeightsRefused, match="Linear"):
        weights.load_state_dict(path, allow_pickle=True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html><head></head></html>", "a web page"),
        (b"\n  <html lang='en'>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a Git LFS pointer"),
        (b'{"error": "Repository not found"}', "JSON text"),
        (b"GGUF\x03\x00\x00\x00", "a GGUF file"),
        (b"\x1f\x8b\x08\x00", "a gzip archive"),
        (b"some text of no kind", "of no known kind"),
        (b"\xff" * 8 + b"{" + b" " * 40, "of no known kind"),  # a header of 2^64 bytes
    ],
)
@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
def test_what_is_saved_as_weights_by_mistake_is_named(tmp_path, content, said, name):
    path = tmp_path / name
    path.write_bytes(content)
    for allow in (False, True):
        with pytest.raises(WeightsDamaged, match=said):
            weights.load_state_dict(path, allow_pickle=allow)


def test_every_cut_of_a_safetensors_file_is_an_error_of_ours(safe):
    whole = safe.read_bytes()
    for length in range(len(whole)):
        safe.write_bytes(whole[:length])
        with pytest.raises(WeightsDamaged):
            weights.load_state_dict(safe)


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 16]}},  # shape and bytes disagree
        {"a": {"dtype": "F99", "shape": [4], "data_offsets": [0, 16]}},
        {"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}},
        {"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}},
        {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 1 << 62]}},
        {"a": 3},
        {},
    ],
)
def test_damaged_safetensors_headers(tmp_path, header):
    """C8 34."""
    text = json.dumps(header).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
    with pytest.raises((WeightsDamaged, WeightsUnsuitable)):
        weights.load_state_dict(path)


@pytest.mark.parametrize("old_format", [False, True])
def test_cut_pickles_are_errors_of_ours(tmp_path, old_format):
    path = saved(tmp_path / "model.pth", tensors(), _use_new_zipfile_serialization=not old_format)
    whole = path.read_bytes()
    for length in range(4, len(whole) - 1, 37):
        path.write_bytes(whole[:length])
        with pytest.raises((WeightsDamaged, WeightsRefused)):
            weights.load_state_dict(path, allow_pickle=True)


def test_a_zip_that_is_no_checkpoint(tmp_path):
    path = tmp_path / "model.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(WeightsDamaged):
        weights.load_state_dict(path, allow_pickle=True)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, "text", {"state_dict": {}}])
def test_a_checkpoint_without_tensors(tmp_path, content):
    path = saved(tmp_path / "model.pth", content)
    with pytest.raises(WeightsUnsuitable, match="no tensors"):
        weights.load_state_dict(path, allow_pickle=True)


@pytest.mark.parametrize("source", ["no/such/file.safetensors", "folder", "weights/model.safetensors", "a\0b", ""])
def test_what_is_no_file(tmp_path, monkeypatch, source):
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsMissing, match=r"no weights file|must be a file|cannot be read"):
        weights.resolve(source)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WeightsMissing, match="not a folder or device"):
        weights.resolve(tmp_path / "pipe")


# Conversion


def test_convert_writes_plain_tensors_once(tmp_path):
    shared = torch.arange(6.0)
    content = {"state_dict": {"module.a": shared, "module.b": shared.view(2, 3).T, "module.c": shared}}
    source = saved(tmp_path / "model.ckpt", content)
    target = tmp_path / "model.safetensors"
    done = weights.convert(source, target, allow_pickle=True)
    assert same(weights.load_state_dict(target), {"a": shared, "b": shared.view(2, 3).T, "c": shared})
    assert (done.tensors, done.parameters) == (3, 18)
    assert done.source_sha256 == weights.sha256_of(source)
    with safetensors_torch.safe_open(target, "pt") as opened:
        assert opened.metadata()["source_sha256"] == done.source_sha256
    before = target.read_bytes()
    with pytest.raises(OutputWouldOverwrite):
        weights.convert(source, target, allow_pickle=True)
    assert target.read_bytes() == before


def test_convert_refuses_before_it_works(tmp_path, safe):
    with pytest.raises(OptionInvalid, match="must end in"):
        weights.convert(safe, tmp_path / "out.pth")
    with pytest.raises(OutputWouldOverwrite):
        weights.convert(safe, safe)
    source = saved(tmp_path / "model.pth", tensors())
    with pytest.raises(WeightsRefused):
        weights.convert(source, tmp_path / "new.safetensors")
    assert not (tmp_path / "new.safetensors").exists()


def test_convert_leaves_nothing_when_the_disk_is_full(tmp_path, safe, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(files.os, "fsync", full)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputFailed, match="no space"):
        weights.convert(safe, tmp_path / "new.safetensors")
    assert sorted(tmp_path.iterdir()) == before


def test_a_tensor_that_safetensors_cannot_hold(tmp_path):
    path = saved(tmp_path / "model.pth", {"a": torch.ones(2, dtype=torch.complex128)})
    with pytest.raises(WeightsUnsuitable, match="cannot hold"):
        weights.convert(path, tmp_path / "new.safetensors", allow_pickle=True)


def test_the_command_converts(tmp_path, capsys):
    source, target = saved(tmp_path / "model.pth", {"params": tensors()}), tmp_path / "model.safetensors"
    assert main(["weights", "convert", str(source), str(target)]) == 2
    assert "WeightsRefused[ZIQ-702]" in capsys.readouterr().err
    assert main(["weights", "convert", str(source), str(target), "--allow-pickle"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["sha256"] == weights.sha256_of(target)
    assert same(weights.load_state_dict(target), tensors())


# The hub


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as its client asks for."""

    files: dict[str, dict[str, bytes]]
    asked: list[str]

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, *, with_body):
        path = self.path.partition("?")[0]
        self.asked.append(path)
        owner, name, *rest = path.removeprefix("/api/models").strip("/").split("/")
        repo = f"{owner}/{name}"
        if repo == "some/gated":
            return self.reply(403, {"X-Error-Code": "GatedRepo"})
        if repo == "some/broken":
            return self.reply(400)
        if repo not in self.files:
            return self.reply(404, {"X-Error-Code": "RepoNotFound"})
        if path.startswith("/api/"):
            siblings = [{"rfilename": name} for name in self.files[repo]]
            body = {"id": repo, "modelId": repo, "sha": "0" * 40, "siblings": siblings, "tags": [], "private": False}
            if "tree" in rest:
                body = [
                    {"type": "file", "path": name, "size": len(data), "oid": "0" * 40}
                    for name, data in self.files[repo].items()
                ]
            return self.reply(200, {"Content-Type": "application/json"}, json.dumps(body).encode(), with_body)
        data = self.files[repo].get("/".join(rest[2:]))
        if data is None:
            return self.reply(404, {"X-Error-Code": "EntryNotFound"})
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": "0" * 40}
        return self.reply(200, headers, data, with_body)

    def reply(self, status, headers=None, body=b"", with_body=True):
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch, safe):
    constants = pytest.importorskip("huggingface_hub.constants", reason="extra diffusion")
    pickled = saved(tmp_path / "model.ckpt", tensors())
    handler = type(
        "ThisHub",
        (Hub,),
        {
            "files": {
                "some/one": {"model.safetensors": safe.read_bytes(), "readme.md": b"hello"},
                "some/two": {"a.safetensors": safe.read_bytes(), "sub/b.safetensors": safe.read_bytes()},
                "some/pickle": {"model.ckpt": pickled.read_bytes()},
                "some/page": {"model.safetensors": b"<!doctype html>"},
                "some/empty": {"readme.md": b"hello"},
            },
            "asked": [],
        },
    )
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(importlib.import_module("huggingface_hub.hf_api").api, "endpoint", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    yield handler
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "source", ["some/one:model.safetensors", "some/one", "some/two:a.safetensors", "some/two:sub/b.safetensors"]
)
def test_a_hub_file_is_fetched_and_then_kept(hub, monkeypatch, source):
    path = weights.resolve(source)
    assert same(weights.load_state_dict(path), tensors())
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.asked.clear()
    if ":" in source or source == "some/one":
        assert weights.resolve(source) == path
    assert hub.asked == [], "offline means that nothing is asked"


def test_an_existing_path_wins_over_a_hub_id(hub, tmp_path, monkeypatch, safe):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some").mkdir()
    local = safe.rename(tmp_path / "some" / "one")
    assert weights.resolve("some/one").samefile(local)
    assert hub.asked == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("some/nothing:model.safetensors", "no such repository"),
        ("some/nothing", "no such repository"),
        ("some/one:other.safetensors", "has no such file"),
        ("some/gated:model.safetensors", "accepted their terms"),
        ("some/broken:model.safetensors", "HTTP 400"),
        ("some/broken", "HTTP 400"),
        ("some/two", r"2 safetensors files.*some/two:FILE with one of a\.safetensors, sub/b\.safetensors"),
        ("some/pickle", r"0 safetensors files.*model\.ckpt"),
        ("some/empty", "it holds no weights"),
        ("some/one--x:model.safetensors", "no hub id"),
    ],
)
def test_what_the_hub_does_not_give(hub, source, said):
    with pytest.raises(WeightsMissing, match=said):
        weights.resolve(source)


def test_a_pickle_on_the_hub_is_refused_before_it_is_fetched(hub):
    with pytest.raises(
        WeightsRefused, match=r"weights convert some/pickle:model.ckpt model.safetensors --allow-pickle"
    ):
        weights.resolve("some/pickle:model.ckpt")
    assert hub.asked == []
    path = weights.resolve("some/pickle:model.ckpt", allow_pickle=True)
    assert same(weights.load_state_dict(path, allow_pickle=True), tensors())


def test_a_page_on_the_hub_is_no_weights(hub):
    with pytest.raises(WeightsDamaged, match="web page"):
        weights.resolve("some/page")


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
@pytest.mark.parametrize("source", ["some/one:model.safetensors", "some/one"])
def test_offline_says_so(hub, monkeypatch, variable, source):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(WeightsMissing, match=r"offline, and the weights are not in the hub's cache"):
        weights.resolve(source)
    assert hub.asked == []


def test_no_answer_and_no_space_are_said(hub, monkeypatch):
    import huggingface_hub

    def unreachable(*args, **options):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no answer")

    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    for failure, said in ((unreachable, "hub cannot be reached"), (full, "could not be fetched.*No space left")):
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", failure)
        with pytest.raises(WeightsMissing, match=said):
            weights.resolve("some/one:model.safetensors")


@pytest.mark.parametrize("name", ["../x", "a/../b", "/etc/passwd", "x//y", ".", "a/.."])
def test_a_hub_file_stays_inside_its_repository(name):
    assert weights.hub_id(f"some/one:{name}") is None


def test_missing_parts_are_named(safe, monkeypatch):
    from zoomiqa.errors import ExtraMissing

    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ExtraMissing, match=r"huggingface_hub; run: pip install"):
        weights.resolve("some/one:model.safetensors")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(ExtraMissing, match=r"torch and safetensors"):
        weights.load_state_dict(safe)
