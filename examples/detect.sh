#!/bin/sh
# Finds the objects in an image by means of curl, and prints the JSON of the answer's content.
#
#   sh examples/detect.sh [IMAGE]
#
# Asks the server at OPENAI_BASE_URL, by default the one that `make serve` starts.

set -eu
image=${1:-examples/circle-and-square.png}
url=${OPENAI_BASE_URL:-http://127.0.0.1:8000/v1}

curl -sS "$url/chat/completions" -H "content-type: application/json" -d @- <<END |
{"model": "florence-2-base", "task": "detect", "messages": [{"role": "user", "content": [
  {"type": "image_url", "image_url": {"url": "data:image/${image##*.};base64,$(base64 <"$image")"}}]}]}
END
    python3 -c 'if True:
        import json, sys
        answer = json.load(sys.stdin)
        print(answer["choices"][0]["message"]["content"] if "choices" in answer else answer["error"]["message"])'
