"""Where the service listens: settled before anything is begun, and said once it is ready."""

import socket

import pytest

from apps.server import Place
from restore_bridge.cli import main


def refused(tmp_path, capsys, *words):
    assert main(["app", "--data", str(tmp_path / "data"), "--no-pages", *words]) == 2
    err = capsys.readouterr().err
    assert "ZIQ-501" in err
    assert "serving at" not in err
    return err


@pytest.mark.parametrize("port", ["99999", "-1"])
def test_a_port_out_of_range(port, tmp_path, capsys):
    assert "a port must lie in 0..65535" in refused(tmp_path, capsys, "--port", port)


def test_a_port_that_is_taken(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert "cannot be listened at" in refused(tmp_path, capsys, "--port", port)
    assert not list(tmp_path.glob("data/jobs*"))


def test_a_host_that_is_elsewhere(tmp_path, capsys):
    assert "cannot be listened at" in refused(tmp_path, capsys, "--host", "no.such.host.invalid")


def test_a_free_port_is_found_and_told():
    place = Place(port=0)
    with place.listen() as listening:
        port = listening.getsockname()[1]
        assert port
        assert place.url(listening) == f"http://127.0.0.1:{port}"


def test_the_address_is_said_when_it_is_ready(service):
    assert f"serving at {service.url} (Ctrl-C ends it)" in service.log.read_text("utf-8")
