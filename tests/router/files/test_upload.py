"""Forms: what clients send is read, and what they should not send is refused at once."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.config import RouterConfig
from router.files.upload import MAX_FORM_PARTS, Upload, clean_filename, read_upload
from vlm.errors import InvalidRequest

CONFIG = RouterConfig()
FORM = "multipart/form-data; boundary=b"


def part(disposition: str, data: bytes = b"", *headers: str) -> bytes:
    lines = [f"Content-Disposition: form-data; {disposition}", *headers]
    return b"--b\r\n" + "\r\n".join(lines).encode() + b"\r\n\r\n" + data + b"\r\n"


FILE = part('name="file"; filename="cat.png"', b"\x89PNG", "Content-Type: image/png")
PURPOSE = part('name="purpose"', b"vision")
END = b"--b--\r\n"


def field(name: str, value: str) -> bytes:
    return part(f'name="{name}"', value.encode())


def read(*parts: bytes, content_type: str = FORM, end: bytes = END, **settings: Any) -> Upload:
    return read_upload(content_type, b"".join(parts) + end, RouterConfig.from_args(settings))


def test_a_form_as_clients_send_it() -> None:
    assert read(FILE, PURPOSE) == Upload(b"\x89PNG", "cat.png", "vision")
    assert read(PURPOSE, FILE) == Upload(b"\x89PNG", "cat.png", "vision")


def test_a_form_of_httpx() -> None:
    files = {"file": ("Übersicht.png", b"\r\n--b\r\n\x00", "image/png")}
    fields = {"purpose": "user_data", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    request = httpx.Request("POST", "http://router", data=fields, files=files)
    request.read()
    found = read_upload(request.headers["content-type"], request.content, CONFIG)
    assert found == Upload(b"\r\n--b\r\n\x00", "Übersicht.png", "user_data", 3600)


@pytest.mark.parametrize(
    "content_type",
    [
        'multipart/form-data; boundary="b"', "Multipart/Form-Data; Boundary=b", "multipart/form-data;boundary=b",
        "multipart/form-data; charset=utf-8; boundary=b", "multipart/form-data; boundary=b; charset=utf-8",
    ],
)  # fmt: skip
def test_spellings_of_the_content_type(content_type: str) -> None:
    assert read(FILE, PURPOSE, content_type=content_type).content == b"\x89PNG"


def test_unknown_fields_are_reported() -> None:
    assert read(FILE, PURPOSE, field("user", "kim"), field("model", "x")).ignored == ("user", "model")


def test_a_file_without_a_name_gets_one() -> None:
    assert read(part('name="file"', b"x"), PURPOSE).filename == "upload"


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("cat.png", "cat.png"),
        ("/etc/passwd", "passwd"),
        ("..\\..\\windows\\win.ini", "win.ini"),
        ("../", "upload"),
        ("", "upload"),
        ("a\0b\r\nc\x1b[31m\u202egnp.png", "abc[31mgnp.png"),
        ("\ud800.png", ".png"),
        ("猫.png", "猫.png"),
        ("a" * 1000, "a" * 255),
    ],
)
def test_names_are_without_paths_and_control_characters(sent: str, shown: str) -> None:
    assert clean_filename(sent) == shown


def others(count: int) -> bytes:
    return b"".join(field(f"a{at}", "") for at in range(count))


def hostile(count: int, piece: bytes) -> bytes:
    return part('name="file"; filename="a"', piece * count)


BAD_FORMS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", FORM),
    "not a form": (b'{"file": "cat.png"}', FORM),
    "without a content type": (FILE + PURPOSE + END, ""),
    "JSON by its type": (FILE + PURPOSE + END, "application/json"),
    "urlencoded": (b"purpose=vision&file=x", "application/x-www-form-urlencoded"),
    "mixed": (FILE + PURPOSE + END, "multipart/mixed; boundary=b"),
    "without a boundary": (FILE + PURPOSE + END, "multipart/form-data"),
    "empty boundary": (FILE + PURPOSE + END, "multipart/form-data; boundary="),
    "long boundary": (FILE + PURPOSE + END, f"multipart/form-data; boundary={'b' * 71}"),
    "boundary with a line break": (FILE + PURPOSE + END, 'multipart/form-data; boundary="b\n"'),
    "boundary beyond ASCII": (FILE + PURPOSE + END, "multipart/form-data; boundary=ä"),
    "another boundary": (FILE + PURPOSE + END, "multipart/form-data; boundary=c"),
    "boundary in quotes that stay open": (FILE + PURPOSE + END, 'multipart/form-data; boundary="b'),
    "without an end": (FILE + PURPOSE, FORM),
    "ends within the file": (FILE[:-4], FORM),
    "ends within a header": (FILE[:20], FORM),
    "line feeds alone": ((FILE + PURPOSE + END).replace(b"\r\n", b"\n"), FORM),
    "boundary that goes on": (FILE + b"--bX\r\n" + PURPOSE + END, FORM),
    "part without a disposition": (b"--b\r\nContent-Type: image/png\r\n\r\nx\r\n" + END, FORM),
    "part without headers": (b"--b\r\n\r\nx\r\n" + END, FORM),
    "an attachment": (b"--b\r\nContent-Disposition: attachment; name=file\r\n\r\nx\r\n" + END, FORM),
    "part without a name": (part('filename="a"', b"x") + END, FORM),
    "header without a colon": (b"--b\r\nContent-Disposition\r\n\r\nx\r\n" + END, FORM),
    "header with a bad name": (part('name="file"', b"x", "Content Type: a") + END, FORM),
    "header over two lines": (part('name="file"', b"x", "X-A: a\r\n b") + END, FORM),
    "header that is not UTF-8": (FILE.replace(b"cat", b"\xff\xfe") + PURPOSE + END, FORM),
    "long header": (part('name="file"', b"x", f"X-A: {'a' * 5000}") + END, FORM),
    "header without an end": (b"--b\r\nX-A: " + b"a" * 500_000, FORM),
    "many headers": (part('name="file"', b"x", *[f"X-{at}: a" for at in range(20)]) + END, FORM),
    "more parts than allowed": (FILE + PURPOSE + others(MAX_FORM_PARTS - 1) + END, FORM),
    "a hundred thousand parts": (others(100_000) + END, FORM),
    "a million boundaries that go on": (hostile(1_000_000, b"\r\n--bX") + END, FORM),
    "a million half ends": (hostile(1_000_000, b"\r\n--b-X") + END, FORM),
    "wrong length of a part": (part('name="file"', b"x", "Content-Length: 7") + PURPOSE + END, FORM),
    "negative length of a part": (part('name="file"', b"x", "Content-Length: -1") + PURPOSE + END, FORM),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FORMS)
def test_bad_forms_are_refused(name: str) -> None:
    body, content_type = BAD_FORMS[name]
    with pytest.raises(InvalidRequest) as caught:
        read_upload(content_type, body, CONFIG)
    assert (caught.value.code, caught.value.param) == ("invalid_multipart", None)


def test_a_file_full_of_beginnings_of_a_boundary_is_read() -> None:
    for piece in (b"\r", b"\r\n", b"\r\n-", b"\r\n--", b"--b--"):
        data = piece * 500_000
        assert read(part('name="file"; filename="a"', data), PURPOSE).content == data


LONG_AGO = "expires_after[seconds]"
BAD_FIELDS: dict[str, tuple[list[bytes], str, str]] = {
    "no file": ([PURPOSE], "file", "missing_required_parameter"),
    "no purpose": ([FILE], "purpose", "missing_required_parameter"),
    "two files": ([FILE, FILE, PURPOSE], "file", "invalid_value"),
    "two purposes": ([FILE, PURPOSE, PURPOSE], "purpose", "invalid_value"),
    "assistants": ([FILE, field("purpose", "assistants")], "purpose", "invalid_value"),
    "batch": ([FILE, field("purpose", "batch")], "purpose", "invalid_value"),
    "empty purpose": ([FILE, field("purpose", "")], "purpose", "invalid_value"),
    "purpose that is not UTF-8": ([FILE, part('name="purpose"', b"\xff")], "purpose", "invalid_value"),
    "long purpose": ([FILE, field("purpose", "v" * 1025)], "purpose", "invalid_value"),
    "no anchor": ([FILE, PURPOSE, field(LONG_AGO, "60")], "expires_after.anchor", "invalid_value"),
    "another anchor": (
        [FILE, PURPOSE, field(LONG_AGO, "60"), field("expires_after[anchor]", "last_active_at")],
        "expires_after.anchor",
        "invalid_value",
    ),
    **{
        f"seconds {seconds!r}": (
            [FILE, PURPOSE, field(LONG_AGO, seconds), field("expires_after[anchor]", "created_at")],
            "expires_after.seconds",
            "invalid_value",
        )
        for seconds in ("0", "-1", "1.5", "", "a", "1e3", "٣", "2592001", "9" * 100)
    },
    "anchor alone": (
        [FILE, PURPOSE, field("expires_after[anchor]", "created_at")],
        "expires_after.seconds",
        "invalid_value",
    ),
    "nothing": ([], "purpose", "missing_required_parameter"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_bad_fields_are_named(name: str) -> None:
    parts, param, code = BAD_FIELDS[name]
    with pytest.raises(InvalidRequest) as caught:
        read(*parts)
    assert (caught.value.param, caught.value.code) == (param, code)
    assert json.dumps(caught.value.message)


WHOLE = FILE + PURPOSE + field("expires_after[anchor]", "created_at") + field(LONG_AGO, "60") + END


@given(
    st.integers(0, len(WHOLE)),
    st.integers(0, 8),
    st.sampled_from([b"", b"\0", b"\r\n", b"--b", b"--b--", b":", b'"', b"\xff"]),
)
def test_a_form_with_a_fault_is_read_or_refused(at: int, left_out: int, put_in: bytes) -> None:
    """Never anything else: no other exception, which would be a 500."""
    with suppress(InvalidRequest):
        assert isinstance(read(WHOLE[:at] + put_in + WHOLE[at + left_out :], end=b""), Upload)


@given(st.text(max_size=80))
def test_any_content_type_is_read_or_refused(rest: str) -> None:
    with suppress(InvalidRequest):
        read(FILE, PURPOSE, content_type=f"multipart/form-data; boundary={rest}")


def test_an_operator_decides_how_long_a_file_may_be_kept() -> None:
    parts = [FILE, PURPOSE, field(LONG_AGO, "3600"), field("expires_after[anchor]", "created_at")]
    assert read(*parts).ttl_s == 3600
    with pytest.raises(InvalidRequest, match="from 1 to 600"):
        read(*parts, max_file_ttl_s=600, file_ttl_s=60)
