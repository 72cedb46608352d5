"""The routes, from the body of an upload to the request that names it; as clients see them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from router.files import routes
from router.files.file_id import FileId
from tests.images import plain
from tests.router.files.world import IMAGE, as_other, send, serving
from tests.router.world import CHAT, FakeBackend, body, check_error, user

Json = dict[str, Any]

pytestmark = pytest.mark.anyio

PDF = b"%PDF-1.7"


def asking(*ids: str) -> Json:
    return body(messages=[user(*({"type": "file", "file": {"file_id": one}} for one in ids))])


async def uploaded(http: httpx.AsyncClient, content: bytes = IMAGE, name: str = "cat.png", **fields: str) -> Json:
    answer = await send(http, content, name, **fields)
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


async def test_upload_ask_and_delete(tmp_path: Path) -> None:
    backend = FakeBackend()
    async with serving(tmp_path / "files", backend) as http:
        file = await uploaded(http)
        assert file == (await http.get(f"/v1/files/{file['id']}")).json()
        assert (file["object"], file["bytes"], file["filename"]) == ("file", len(IMAGE), "cat.png")
        assert (file["purpose"], file["status"]) == ("vision", "processed")
        assert file["expires_at"] - file["created_at"] in (604_799, 604_800)
        assert (await http.post(CHAT, json=asking(file["id"]))).status_code == 200
        assert backend.asked[0][1].image == IMAGE
        deleted = await http.delete(f"/v1/files/{file['id']}")
        assert deleted.json() == {"id": file["id"], "object": "file", "deleted": True}
        check_error(await http.delete(f"/v1/files/{file['id']}"), 404, "file_not_found", "id")
        check_error(await http.get(f"/v1/files/{file['id']}"), 404, "file_not_found", "id")
        param = "messages[0].content[0].file.file_id"
        check_error(await http.post(CHAT, json=asking(file["id"])), 400, "image_file_not_found", param)
        assert len(backend.asked) == 1


async def test_a_file_beside_other_images(tmp_path: Path) -> None:
    backend = FakeBackend()
    async with serving(tmp_path / "files", backend) as http:
        first, second = await uploaded(http), await uploaded(http, plain(9, 9))
        assert (await http.post(CHAT, json=asking(second["id"], first["id"]))).status_code == 200
        assert backend.asked[0][1].images == (plain(9, 9), IMAGE)
        in_a_url = {"type": "image_url", "image_url": {"file_id": first["id"]}}
        assert (await http.post(CHAT, json=body(messages=[user(in_a_url)]))).status_code == 200
        assert backend.asked[1][1].image == IMAGE


async def test_another_caller_finds_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path / "files") as http:
        file = await uploaded(http)
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/content")):
            answer = await http.request(method, f"/v1/files/{file['id']}{path}", headers=as_other())
            check_error(answer, 404, "file_not_found", "id")
        assert (await http.get("/v1/files", headers=as_other())).json()["data"] == []
        param = "messages[0].content[0].file.file_id"
        check_error(
            await http.post(CHAT, json=asking(file["id"]), headers=as_other()), 400, "image_file_not_found", param
        )


async def test_one_key_is_one_owner_in_either_header(tmp_path: Path) -> None:
    async with serving(tmp_path / "files") as http:
        file = await uploaded(http)
        key = http.headers.pop("authorization").removeprefix("Bearer ")
        for headers in ({"x-moondream-auth": key}, {"authorization": f"bearer  {key}"}):
            assert (await http.get(f"/v1/files/{file['id']}", headers=headers)).status_code == 200


async def test_a_key_is_needed_unless_the_operator_says_otherwise(tmp_path: Path) -> None:
    for key in ("", "Bearer none", "Bearer sk-no-key-required", f"Bearer sk-{'x' * 40}"):
        headers = {"authorization": key}
        async with serving(tmp_path / "files") as http:
            error = check_error(await http.get("/v1/files", headers=headers), 401, None, None)
            assert "at least 24 characters" in error["message"]
            check_error(await http.post(CHAT, json=asking("file-1"), headers=headers), 401, None, None)
        async with serving(tmp_path / "files", files_without_key=True) as http:
            assert (await http.get("/v1/files", headers=headers)).status_code == 200


async def test_without_a_store(tmp_path: Path) -> None:
    async with serving(None) as http:
        for answer in (await send(http), await http.get("/v1/files"), await http.delete("/v1/files/file-1")):
            error = check_error(answer, 404, "files_not_enabled", None)
            assert "within the request" in error["message"]
        answer = await http.post(CHAT, json=asking("file-1"))
        check_error(answer, 400, "image_file_not_found", "messages[0].content[0].file.file_id")


@pytest.mark.parametrize(
    ("content", "code", "settings"),
    [
        (b"", "empty_image_file", {}),
        (PDF, "invalid_image_format", {}),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "invalid_image_format", {}),
        (plain()[:40], "image_parse_error", {}),
        (plain(100, 100), "image_too_large", {"max_image_pixels": 9_999}),
        (plain(1, 1), "image_too_small", {"min_image_side": 2}),
        (plain(100, 100), "image_file_too_large", {"max_image_bytes": 100}),
    ],
)
async def test_what_is_not_an_image_within_the_limits(
    tmp_path: Path, content: bytes, code: str, settings: Json
) -> None:
    async with serving(tmp_path / "files", **settings) as http:
        check_error(await send(http, content), 400, code, "file")
        assert list((tmp_path / "files").iterdir()) == []


async def test_a_body_that_is_too_large(tmp_path: Path) -> None:
    async with serving(tmp_path / "files", max_body_bytes=1000) as http:
        check_error(await send(http, bytes(2000)), 413, "request_too_large", None)


async def test_a_form_that_is_none(tmp_path: Path) -> None:
    async with serving(tmp_path / "files") as http:
        check_error(await http.post("/v1/files", json={"file": "cat.png"}), 400, "invalid_multipart", None)
        check_error(await send(http, purpose="assistants"), 400, "invalid_value", "purpose")


async def test_a_full_store_is_not_tried_again(tmp_path: Path) -> None:
    async with serving(tmp_path / "files", max_files_per_caller=1, max_files=2) as http:
        await uploaded(http)
        refused = await send(http)
        check_error(refused, 400, "file_quota_exceeded", None)
        http.headers["authorization"] = as_other()["authorization"]
        await uploaded(http)
        http.headers["authorization"] = f"Bearer {'third key with many characters'}"
        refused = await send(http)
        check_error(refused, 507, "file_store_full", None)
        assert refused.headers["x-should-retry"] == "false"


async def test_a_store_that_does_not_answer(tmp_path: Path) -> None:
    async with serving(tmp_path / "files") as http:
        (tmp_path / "files" / "key").mkdir()
        error = check_error(await http.get("/v1/files"), 503, "files_unavailable", None)
        assert str(tmp_path) not in error["message"]


async def test_unknown_fields_are_reported(tmp_path: Path) -> None:
    async with serving(tmp_path / "files") as http:
        assert (await uploaded(http, user="kim"))["x_gigarouter"] == {"ignored": ["user"]}
        assert "x_gigarouter" not in await uploaded(http)


async def test_the_content_cannot_be_taken_for_a_page(tmp_path: Path) -> None:
    async with serving(tmp_path / "files") as http:
        file = await uploaded(http, name='a";\r\nx: y/Ü b.png')
        answer = await http.get(f"/v1/files/{file['id']}/content")
        assert answer.content == IMAGE
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''%C3%9C%20b.png"


@pytest.mark.parametrize("path", ["file-1", "..", "..%2f..%2fkey", "%00", "a" * 5000, "file-%2e%2e%2f"])
async def test_no_path_leads_anywhere(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path / "files") as http:
        await uploaded(http)
        for end in ("", "/content"):
            answer = await http.get(f"/v1/files/{path}{end}")
            assert answer.status_code == 404
            assert answer.json()["error"]["code"] in ("file_not_found", "unknown_url")


# Lists


async def several(http: httpx.AsyncClient, count: int) -> list[str]:
    """The ids of files, the oldest first."""
    ids = [(await uploaded(http, purpose=("vision", "user_data")[at % 2]))["id"] for at in range(count)]
    return sorted(ids)


async def test_a_list_in_pages(tmp_path: Path) -> None:
    async with serving(tmp_path / "files") as http:
        ids = await several(http, 5)
        page = (await http.get("/v1/files", params={"limit": 2})).json()
        assert [one["id"] for one in page["data"]] == [ids[4], ids[3]]
        assert (page["object"], page["has_more"]) == ("list", True)
        assert (page["first_id"], page["last_id"]) == (ids[4], ids[3])
        page = (await http.get("/v1/files", params={"limit": 2, "after": ids[3]})).json()
        assert [one["id"] for one in page["data"]] == [ids[2], ids[1]]
        page = (await http.get("/v1/files", params={"limit": 2, "after": ids[1]})).json()
        assert ([one["id"] for one in page["data"]], page["has_more"]) == ([ids[0]], False)
        page = (await http.get("/v1/files", params={"order": "asc", "after": ids[1]})).json()
        assert [one["id"] for one in page["data"]] == ids[2:]
        page = (await http.get("/v1/files", params={"limit": 5})).json()
        assert (len(page["data"]), page["has_more"]) == (5, False)


async def test_a_page_goes_on_behind_a_file_that_has_been_deleted(tmp_path: Path) -> None:
    async with serving(tmp_path / "files") as http:
        ids = await several(http, 3)
        await http.delete(f"/v1/files/{ids[1]}")
        for order, expected in (("asc", ids[2]), ("desc", ids[0])):
            page = (await http.get("/v1/files", params={"order": order, "after": ids[1]})).json()
            assert [one["id"] for one in page["data"]] == [expected]


async def test_a_list_of_one_purpose(tmp_path: Path) -> None:
    async with serving(tmp_path / "files") as http:
        await several(http, 4)
        for purpose, count in (("vision", 2), ("user_data", 2), ("assistants", 0)):
            data = (await http.get("/v1/files", params={"purpose": purpose})).json()["data"]
            assert [one["purpose"] for one in data] == [purpose] * count


async def test_an_empty_list(tmp_path: Path) -> None:
    async with serving(tmp_path / "files") as http:
        assert (await http.get("/v1/files")).json() == {
            "object": "list", "data": [], "has_more": False, "first_id": None, "last_id": None,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [("limit", "0"), ("limit", "10001"), ("limit", "-1"), ("limit", "a"), ("limit", "٣"), ("limit", "9" * 5000),
     ("order", "up"), ("after", "file-1"), ("after", "../key")],
)  # fmt: skip
async def test_bad_questions(tmp_path: Path, name: str, value: str) -> None:
    async with serving(tmp_path / "files") as http:
        check_error(await http.get("/v1/files", params={name: value}), 400, "invalid_value", name)


async def test_other_methods_and_paths(tmp_path: Path) -> None:
    async with serving(tmp_path / "files") as http:
        check_error(await http.put("/v1/files"), 405, "method_not_supported", None)
        check_error(await http.post("/v1/files/file-1"), 405, "method_not_supported", None)
        check_error(await http.get("/v1/files/file-1/parts"), 404, "unknown_url", None)


def test_a_page_is_as_large_as_openais() -> None:
    assert routes.MAX_PAGE == 10_000
    assert FileId.parse("file-") is None
