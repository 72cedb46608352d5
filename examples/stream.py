"""Prints a caption as it is generated, and then the objects that it mentions.

.venv/bin/python examples/stream.py [IMAGE]

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
stream = client.chat.completions.create(
    model="kosmos-2",
    messages=[{"role": "user", "content": [image]}],
    extra_body={"task": {"name": "caption", "length": "short"}},
    stream=True,
)
for chunk in stream:
    choice = chunk.choices[0]
    print(choice.delta.content or "", end="", flush=True)
    if choice.finish_reason:  # the last chunk, and only it, has the objects
        print()
        for found in choice.delta.grounding["objects"]:
            print(found["label"], found["box_px"])
