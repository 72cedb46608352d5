"""Asks a question that the model reasons about first, and prints the reasoning, the answer and the points it used.

.venv/bin/python examples/reasoning.py [IMAGE]

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
answer = client.chat.completions.create(
    model="moondream-2",
    messages=[{"role": "user", "content": [image, {"type": "text", "text": "How many shapes are there?"}]}],
    extra_body={"task": {"name": "query", "reasoning": True}},
)
message = answer.choices[0].message
print("reasoning:", message.reasoning_content.strip())
print("answer:", message.content)
for found in message.grounding["objects"]:
    print(found["label"], found["point_px"])
