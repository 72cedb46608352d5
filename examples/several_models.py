"""Asks several models about one image: each for a caption, and one about each object that another has found.

.venv/bin/python examples/several_models.py [IMAGE]

Asks the server at OPENAI_BASE_URL, by default the one that `make serve` starts.
"""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path

from openai import OpenAI

path = Path(sys.argv[1] if len(sys.argv) > 1 else "examples/circle-and-square.png")
data = base64.b64encode(path.read_bytes()).decode()
image = {"type": "image_url", "image_url": {"url": f"data:image/{path.suffix[1:]};base64,{data}"}}

client = OpenAI(base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"), api_key="none")
compared = client.chat.completions.create(
    model="compare",
    messages=[{"role": "user", "content": [image]}],
    extra_body={"models": ["blip-large", "florence-2-base"], "task": {"name": "caption", "length": "short"}},
)
for choice in compared.choices:
    print(f"{choice.model}: {choice.message.content}")

steps = [
    {"model": "florence-2-base", "task": "detect"},
    {"for_each": "objects", "crop": 2, "model": "blip-large", "task": "caption"},
]
answer = client.chat.completions.create(
    model="pipeline",
    messages=[{"role": "user", "content": [image]}],
    extra_body={"pipeline": steps},
)
for found in answer.choices[0].message.grounding["objects"]:
    print(found["label"], found["box_px"], found["answers"][0]["text"])
