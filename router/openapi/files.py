"""The operations of uploaded files, and their answers as types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, NotRequired

from typing_extensions import TypedDict

from router.files.file_id import PURPOSES, Purpose
from router.files.routes import MAX_PAGE
from router.files.upload import ANCHOR, FILE, MAX_FORM_PARTS, PURPOSE, SECONDS
from router.openapi.answers import Count, UnixSeconds
from router.openapi.error_codes import OF_FILES, OF_IMAGES
from router.openapi.operation import JSON, Answer, Json, Operation, Parameter
from router.openapi.parts import CONFIG
from router.openapi.schemas import Says


class FileExtras(TypedDict):
    """What this server says beside the file."""

    ignored: Annotated[list[str], Says("Fields of the form that were not used.")]


class FileObject(TypedDict):
    """An uploaded file, as OpenAI describes it."""

    id: str
    object: Literal["file"]
    bytes: Count
    created_at: UnixSeconds
    expires_at: UnixSeconds
    filename: str
    purpose: Purpose
    status: Literal["processed"]
    status_details: None
    x_gigarouter: NotRequired[FileExtras]


class FilePage(TypedDict):
    """Some of the caller's files."""

    object: Literal["list"]
    data: list[FileObject]
    has_more: Annotated[bool, Says("Whether more come behind them.")]
    first_id: str | None
    last_id: str | None


class FileDeleted(TypedDict):
    """The file is gone."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]


FORM: Json = {
    "type": "object",
    "required": [FILE, PURPOSE],
    "properties": {
        FILE: {"type": "string", "format": "binary", "description": "The image: PNG, JPEG, WebP, GIF or BMP."},
        PURPOSE: {"enum": list(PURPOSES), "description": "What it is for; both mean the same here."},
        ANCHOR: {"const": "created_at", "description": "With the seconds."},
        SECONDS: {
            "type": "integer",
            "minimum": 1,
            "maximum": CONFIG.max_file_ttl_s,
            "description": f"After how many seconds it is deleted; {CONFIG.file_ttl_s} by default.",
        },
    },
    "propertyNames": {"minLength": 1},
    "additionalProperties": {"type": "string"},
    "dependentRequired": {ANCHOR: [SECONDS], SECONDS: [ANCHOR]},
}
ID = Parameter("id", "path", "The id of a file of the caller.", {"type": "string"})
ANY_BYTES: Json = {"type": "string", "contentMediaType": "application/octet-stream"}
OF_ONE = (*OF_FILES, "file_not_found")
WHOSE = "Files belong to the API key that uploaded them, which is not checked but has to be one that nobody can guess."


def _operation(operation_id: str, summary: str, answer: Answer, **rest: object) -> Operation:
    fields = {"codes": OF_ONE, "parameters": (ID,), **rest}
    return Operation(id=operation_id, summary=summary, description=WHOSE, tag="files", answers={200: answer}, **fields)  # type: ignore[arg-type]  # the names are those of Operation


FILES: Mapping[str, Operation] = {
    one.id: one
    for one in (
        _operation(
            "upload_file",
            "Upload an image",
            Answer("It is stored.", {JSON: FileObject}),
            method="POST",
            parameters=(),
            body={"multipart/form-data": FORM},
            body_description=f"A form of at most {MAX_FORM_PARTS} parts, each field once. Unknown ones are ignored and "
            "reported.",
            codes=(
                *OF_FILES,
                *OF_IMAGES,
                "invalid_multipart",
                "missing_required_parameter",
                "invalid_value",
                "file_quota_exceeded",
                "file_store_full",
            ),
        ),
        _operation(
            "list_files",
            "The caller's files",
            Answer("A page of them.", {JSON: FilePage}),
            parameters=(
                Parameter(
                    "limit",
                    "query",
                    "Number of files in the page.",
                    {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": MAX_PAGE},
                ),
                Parameter(
                    "order",
                    "query",
                    "By the time of their upload; the newest first by default.",
                    {"type": "string", "enum": ["asc", "desc"], "default": "desc"},
                ),
                Parameter("after", "query", "The id of the file behind which the page begins.", {"type": "string"}),
                Parameter("purpose", "query", "Only files of this purpose.", {"type": "string"}),
            ),
            codes=(*OF_FILES, "invalid_value"),
        ),
        _operation("retrieve_file", "One file", Answer("What is known of it.", {JSON: FileObject})),
        _operation("delete_file", "Delete a file", Answer("It is gone.", {JSON: FileDeleted}), method="DELETE"),
        _operation(
            "file_content",
            "The bytes of a file",
            Answer(
                "The bytes, to be saved and not to be shown.",
                {"application/octet-stream": ANY_BYTES},
                headers=("content-disposition", "x-content-type-options", "cache-control"),
            ),
        ),
    )
}
"""By the name of the route."""
