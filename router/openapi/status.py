"""The operations of the routes that answer without a model."""

from __future__ import annotations

from router.openapi.error_codes import OF_HTTP, OF_OPEN, OF_ROUTES
from router.openapi.operation import JSON, Answer, Operation, Parameter
from router.openapi.server_answers import Alive, ModelList, NotReady, Ready, Status
from router.openapi.server_answers import Model as ModelEntry

LIST_MODELS = Operation(
    id="list_models",
    summary="The models that are served",
    description="Those that are not ready yet included; see their status.",
    tag="models",
    parameters=(
        Parameter(
            "expand",
            "query",
            "tasks: one more entry for each task of a model that needs no region, whose id ends in the task. Other "
            "values have no effect.",
            {"type": "string", "enum": ["tasks"]},
        ),
    ),
    answers={200: Answer("All of them.", {JSON: ModelList})},
    codes=(*OF_ROUTES, "model_not_ready"),
)

RETRIEVE_MODEL = Operation(
    id="retrieve_model",
    summary="One model",
    description="By any of its names.",
    tag="models",
    parameters=(
        Parameter(
            "id",
            "path",
            "The model's name or an alias; its slash may be sent as it is. It may end in a task behind a colon.",
            {"type": "string"},
        ),
    ),
    answers={200: Answer("The model.", {JSON: ModelEntry})},
    codes=(*OF_ROUTES, "model_not_found", "model_not_ready"),
)

GROUNDING_SCHEMA = Operation(
    id="grounding_schema",
    summary="The JSON schema of the grounding object",
    description="Draft 2020-12, for validators and for response_format.",
    tag="schemas",
    answers={200: Answer("The schema.", {JSON: {"type": "object"}})},
    codes=OF_OPEN,
)

OPENAPI = Operation(
    id="openapi",
    summary="This document",
    description="OpenAPI 3.1, made of the code that checks requests.",
    tag="schemas",
    answers={200: Answer("The document.", {JSON: {"type": "object"}})},
    codes=OF_OPEN,
)


def _alive(operation_id: str) -> Operation:
    return Operation(
        id=operation_id,
        summary="Whether the process is alive",
        description="Says nothing of the models.",
        tag="health",
        answers={200: Answer("It is.", {JSON: Alive})},
        codes=OF_HTTP,
    )


HEALTH = _alive("health")
HEALTHZ = _alive("healthz")

READYZ = Operation(
    id="readyz",
    summary="Whether every configured model can answer",
    description="For load balancers and start-up scripts.",
    tag="health",
    answers={200: Answer("They can.", {JSON: Ready}), 503: Answer("Some cannot yet.", {JSON: NotReady})},
    codes=(*OF_HTTP, "model_not_ready"),
)

STATUS = Operation(
    id="status",
    summary="What the server does at this moment",
    description="Models, their processes, how much waits, and which errors were answered. The cluster is asked at most "
    "once a second.",
    tag="health",
    answers={200: Answer("The status.", {JSON: Status}, headers=("cache-control",))},
    codes=(*OF_ROUTES, "model_not_ready"),
)
