"""Sends three tasks about one image in one request: a caption, a detection by labels, and a question about a region.

.venv/bin/python examples/several_tasks.py [IMAGE]

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
tasks = [
    {"name": "caption", "length": "short"},
    {"name": "detect", "labels": ["circle", "square"]},
    {"name": "region_category", "region": {"box": [0.12, 0.28, 0.41, 0.68]}},
]
answer = client.chat.completions.create(
    model="florence-2-base",
    messages=[{"role": "user", "content": [image]}],
    extra_body={"tasks": tasks},
)
for part in answer.choices[0].message.grounding["parts"]:  # one for each task, in order
    print(part["task"], part["text"], [found["box_px"] for found in part["objects"]])
