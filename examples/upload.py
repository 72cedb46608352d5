"""Uploads an image once, asks two models about it by its id, and deletes it.

.venv/bin/python examples/upload.py [IMAGE]

Asks the server at OPENAI_BASE_URL, by default the one that `make serve` starts.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from openai import OpenAI

path = Path(sys.argv[1] if len(sys.argv) > 1 else "examples/circle-and-square.png")

# What a client uploads belongs to its key; the server of `make serve` takes any.
client = OpenAI(base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"), api_key="none")
file = client.files.create(file=path, purpose="vision", expires_after={"anchor": "created_at", "seconds": 3600})
print(f"{file.filename}: {file.bytes} bytes")
for model in ("blip-large", "florence-2-base"):
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": [{"type": "file", "file": {"file_id": file.id}}]}],
    )
    print(f"{model}: {answer.choices[0].message.content}")
client.files.delete(file.id)
print(f"files left: {len(list(client.files.list()))}")
