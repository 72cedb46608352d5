"""The names of the router's spans and their attributes: OpenTelemetry's where it has one.

No attribute holds a part of a request or an answer, a key or an address. The name of a model is one that is served.
"""

from __future__ import annotations

METHOD = "http.request.method"
ROUTE = "http.route"
STATUS = "http.response.status_code"
ERROR = "error.type"
PROVIDER = "gen_ai.provider.name"
OPERATION = "gen_ai.operation.name"
MODEL = "gen_ai.request.model"
STREAM = "gen_ai.request.stream"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
REQUEST_ID = "gigarouter.request_id"
OUTCOME = "gigarouter.outcome"
IMAGES = "gigarouter.images"
ATTEMPT = "gigarouter.attempt"
REPLICA = "gigarouter.replica"

ADMISSION = "admission"
READ = "read images"
CALL = "call replica"

RETRY = "retry"
RESUMED = "stream resumed"
FIRST = "first chunk"
