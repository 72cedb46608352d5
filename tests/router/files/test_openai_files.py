"""OpenAI's own client against the routes of files, on a real port; a strict one for the shapes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai import OpenAI
from openai.types import FileObject

from router.app import create_app
from router.config import RouterConfig
from tests.images import plain
from tests.listening import listening
from tests.router.files.world import IMAGE, KEY, OTHER_KEY
from tests.router.world import FakeBackend


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("store") / "files"
    with listening(create_app(FakeBackend(), RouterConfig(files_url=str(folder), max_files_per_caller=12))) as address:
        yield f"{address}/v1"


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    sdk = OpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=20, _strict_response_validation=True)
    with sdk:
        yield sdk
        for file in sdk.files.list():
            sdk.files.delete(file.id)


def test_create_and_wait(client: OpenAI) -> None:
    file = client.files.create(
        file=("cat.png", IMAGE), purpose="vision", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert isinstance(file, FileObject)
    assert file.expires_at == file.created_at + 3600
    assert client.files.wait_for_processing(file.id).status == "processed"
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == IMAGE
    assert client.files.delete(file.id).deleted


def test_create_from_a_path(client: OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "a cat.png"
    path.write_bytes(IMAGE)
    with path.open("rb") as opened:
        assert client.files.create(file=opened, purpose="user_data").filename == "a cat.png"
    assert client.files.create(file=path, purpose="user_data").filename == "a cat.png"
    assert client.files.create(file=IMAGE, purpose="vision").filename == "upload"


def test_a_list_of_several_pages(client: OpenAI) -> None:
    ids = {client.files.create(file=("a.png", plain(8, 6 + at)), purpose="vision").id for at in range(5)}
    assert {file.id for file in client.files.list(limit=2)} == ids
    assert [file.id for file in client.files.list(limit=2, order="asc")] == sorted(ids)
    assert not list(client.files.list(purpose="user_data"))


def test_ask_by_id(client: OpenAI) -> None:
    file = client.files.create(file=("cat.png", IMAGE), purpose="vision")
    answer = client.chat.completions.create(
        model="blip-large",
        messages=[{"role": "user", "content": [{"type": "file", "file": {"file_id": file.id}}]}],
    )
    assert answer.choices[0].message.content == "a red square"


def test_errors_by_class(client: OpenAI, url: str) -> None:
    file = client.files.create(file=("cat.png", IMAGE), purpose="vision")
    with OpenAI(base_url=url, api_key=OTHER_KEY, max_retries=0) as other:
        with pytest.raises(openai.NotFoundError) as missing:
            other.files.retrieve(file.id)
        assert (missing.value.code, missing.value.param) == ("file_not_found", "id")
        with pytest.raises(openai.NotFoundError):
            other.files.content(file.id)
        with pytest.raises(openai.NotFoundError):
            other.files.delete(file.id)
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.create(file=("a.pdf", b"%PDF-1.7"), purpose="user_data")
    assert refused.value.code == "invalid_image_format"
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.create(file=("a.jsonl", b"{}"), purpose="batch")
    assert refused.value.param == "purpose"
    with OpenAI(base_url=url, api_key="none", max_retries=0) as nameless, pytest.raises(openai.AuthenticationError):
        nameless.files.list()


def test_a_full_quota_is_not_tried_again(client: OpenAI) -> None:
    for at in range(12):
        client.files.create(file=("a.png", plain(8, 6 + at)), purpose="vision")
    with pytest.raises(openai.BadRequestError) as refused:
        client.with_options(max_retries=2).files.create(file=("a.png", IMAGE), purpose="vision")
    assert refused.value.code == "file_quota_exceeded"
