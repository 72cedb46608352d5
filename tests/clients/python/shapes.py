"""What clients parse answers into: shapes that answers have, and one that none has."""

from __future__ import annotations

from pydantic import BaseModel


class Found(BaseModel):
    label: str
    box: list[float]


class Detection(BaseModel):
    """What is in the image."""

    objects: list[Found]


class Text(BaseModel):
    text: str


class Invoice(BaseModel):
    total: float
