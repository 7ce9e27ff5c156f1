"""The pages' API through its own client: the whole flow without a browser."""

import shutil

import pytest

from zoomiqa import assess, open_picture

gradio_client = pytest.importorskip("gradio_client", reason='it comes with the app: pip install "zoomiqa[app]"')


@pytest.fixture(scope="module")
def remote(service, tmp_path_factory):
    folder = tmp_path_factory.mktemp("downloads")
    made = gradio_client.Client(service.url, verbose=False, analytics_enabled=False, download_files=str(folder))
    yield made
    made.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def file(photo, tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "photo.png"
    path.write_bytes(photo)
    return gradio_client.handle_file(str(path))


def test_assess(remote, file, photo):
    record = remote.predict(file, api_name="/assess")
    assert record["rating"] == assess(photo).rating
    assert record["rounds"][-1]["findings"][0]["flaw"] == "noise"


def test_prompts(remote, file):
    answer = remote.predict(file, "t5-120", api_name="/prompts")
    assert answer["prompts"]["report"]["encoder"] == "t5-120"
    assert "noise" in answer["negative_lines"]


def test_restore_under_edited_phrases_and_score(remote, file, photo):
    path, record = remote.predict(file, negative="severe noise", strength=0.7, seed=3, api_name="/restore")
    assert record["kept"] == "restored"
    assert [item["text"] for item in record["rounds"][0]["guidance"]["negative"]] == ["severe noise"]
    assert record["settings"]["strength"] == 0.7
    assert open_picture(path).size == open_picture(photo).size
    rows = remote.predict(file, gradio_client.handle_file(path), api_name="/score")
    rating = next(row for row in rows if row["metric"] == "rating")
    assert rating["after"] > rating["before"]


def test_an_error_says_its_code(remote, file):
    with pytest.raises(Exception, match="ZIQ-501"):
        remote.predict(file, assessor="nobody", api_name="/assess")
