"""Finds the objects in an image by means of LangChain, as typed objects.

.venv/bin/pip install langchain-openai
.venv/bin/python examples/clients/detect_langchain.py [IMAGE]

Asks the server at OPENAI_BASE_URL, by default the one that `make serve` starts.
"""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path

from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class Found(BaseModel):
    label: str
    box_px: list[float]


class Detection(BaseModel):
    objects: list[Found]


path = Path(sys.argv[1] if len(sys.argv) > 1 else "examples/circle-and-square.png")
data = base64.b64encode(path.read_bytes()).decode()
image = {"type": "image", "base64": data, "mime_type": f"image/{path.suffix[1:]}"}

model = ChatOpenAI(
    model="florence-2-base",
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key="none",
    extra_body={"task": "detect"},
)
for found in model.with_structured_output(Detection).invoke([HumanMessage([image])]).objects:
    print(found.label, found.box_px)
