"""The architecture, as tables: which room may import which, and where each library may be imported.

A failure names file and line. Change a table only together with docs/architecture.md.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
# What the wheel holds.
PACKAGED = ("accounts", "vlm", "logs", "metrics", "traces", "serve_args", "router", "deployments", "gigarouter")
PRODUCT = (*PACKAGED, "training")
TOOLS = ("benchmarks", "docs/generate", "examples")  # they use the product, and nothing uses them

# A room is the longest of these prefixes that a module's path begins with; it may import itself and what stands here.
ROOMS: dict[str, set[str]] = {
    "vlm/__init__": {"vlm/errors", "vlm/types", "vlm/engine", "vlm/loading"},  # only when a name is first used
    "vlm/errors": set(),
    "vlm/route": set(),
    "vlm/sampling": {"vlm/errors"},
    "vlm/model_info": set(),
    "vlm/trace": set(),
    "vlm/types": {"vlm/errors", "vlm/model_info", "vlm/route", "vlm/sampling", "vlm/trace"},
    "vlm/pace": set(),
    "vlm/consensus": {"vlm/types", "vlm/models/cards"},
    "vlm/generations": {"vlm/errors", "vlm/types"},
    "vlm/grounding_json": {"vlm/types"},
    "vlm/grounding_formats": {"vlm/types"},
    "vlm/grounding_schema": set(),
    "vlm/confidence": set(),
    "vlm/calibration": {"vlm/errors", "vlm/model_info"},
    "vlm/calibration_files": {"vlm/errors", "vlm/calibration", "vlm/checkpoint"},
    "vlm/checkpoint": {"vlm/errors"},
    "vlm/image": {"vlm/errors", "vlm/types", "vlm/checkpoint"},
    "vlm/layers": set(),
    "vlm/models/cards": set(),
    "vlm/models/native_prompts": {"vlm/errors", "vlm/types", "vlm/models/cards"},
    "vlm/models/plain_words": {"vlm/types"},
    "vlm/models/checks": set(),
    "vlm/models/processor": {"vlm/types"},
    "vlm/models/base": {"vlm/types", "vlm/calibration", "vlm/layers", "vlm/checkpoint", "vlm/models/processor"},
    "vlm/models/family": {"vlm/checkpoint", "vlm/models/base", "vlm/models/checks", "vlm/models/processor"},
    "vlm/models": {
        "vlm/errors", "vlm/types", "vlm/confidence", "vlm/checkpoint", "vlm/image", "vlm/layers", "vlm/models/base",
        "vlm/models/cards", "vlm/models/checks", "vlm/models/family", "vlm/models/native_prompts",
        "vlm/models/plain_words", "vlm/models/processor",
    },
    "vlm/loading": {
        "vlm/errors", "vlm/types", "vlm/calibration_files", "vlm/checkpoint", "vlm/models", "vlm/models/base",
        "vlm/models/cards", "vlm/models/family", "vlm/models/processor",
    },
    "vlm/reference": {"vlm/types", "vlm/checkpoint", "vlm/models/processor"},
    "vlm/decoding": {"vlm/errors", "vlm/image", "vlm/models/processor", "vlm/types"},
    "vlm/engine": {
        "vlm/calibration", "vlm/confidence", "vlm/decoding", "vlm/errors", "vlm/types", "vlm/pace", "vlm/generations",
        "vlm/layers",
        "vlm/models/base", "vlm/models/processor",
    },
    "vlm/bench": {
        "vlm/errors", "vlm/types", "vlm/checkpoint", "vlm/engine", "vlm/image", "vlm/loading", "vlm/models/base",
        "vlm/reference",
    },
    "vlm/verify": {
        "vlm/errors", "vlm/types", "vlm/checkpoint", "vlm/image", "vlm/models/base", "vlm/models/cards",
        "vlm/models/checks", "vlm/models/family", "vlm/models/processor", "vlm/loading", "vlm/engine", "vlm/reference",
    },
    "vlm/__main__": {"vlm/errors", "vlm/types", "vlm/cli"},
    "vlm/cli": {
        "vlm/errors", "vlm/types", "vlm/checkpoint", "vlm/image", "vlm/grounding_json", "vlm/engine", "vlm/loading",
        "vlm/models/base", "vlm/models/cards", "vlm/models/processor",
    },
    # Accounts: no HTTP and no Ray. What they are made of and what things cost, everybody may know.
    "accounts/errors": {"vlm/errors"},
    "accounts/keys": {"accounts/types"},
    "accounts/money": set(),
    "accounts/types": {"accounts/money"},
    "accounts/prices": {"accounts/money", "accounts/types"},
    "accounts/environment": set(),
    "accounts": {
        "vlm/errors", "accounts/environment", "accounts/errors", "accounts/keys", "accounts/money", "accounts/prices",
        "accounts/types",
    },
    "serve_args": {"vlm/errors"},
    "logs": set(),
    "metrics": set(),
    "traces": set(),
    "router": set(),
    "router/suggest": set(),
    # Several models for one request. What a request says of them and what becomes of it, formats know; they are asked
    # and put in an order by what knows no format.
    "router/composition/wanted": set(),
    "router/composition/routing_report": {
        "accounts/money", "accounts/prices", "router/charges", "router/composition/wanted", "vlm/errors", "vlm/types",
    },
    "router/composition/auto_rules": {"router/composition/wanted"},
    "router/composition": {
        "accounts/errors", "accounts/money", "accounts/prices", "vlm/confidence", "vlm/consensus", "vlm/errors",
        "vlm/types",
        "router/admission", "router/asgi",
        "router/backends/base", "router/catalogue",
        "router/composition/routing_report", "router/composition/auto_rules", "router/composition/wanted",
        "router/suggest", "vlm/model_info", "vlm/models/cards", "vlm/models/plain_words",
    },
    "router/config": {"accounts/prices", "logs", "serve_args", "traces", "vlm/image", "router/composition/auto_rules"},
    "router/backends/base": {"vlm/errors", "vlm/types", "router/admission"},
    "router/backends": {"vlm/errors", "vlm/types", "router/admission", "router/backends/base"},
    "router/resilience": {
        "traces", "vlm/errors", "vlm/route", "vlm/types", "router/admission", "router/backends/base",
    },
    # What every route needs: knows no format of requests, and not where answers come from.
    "router/admission": {"vlm/errors", "vlm/generations", "vlm/pace"},
    "router/asgi": {
        "accounts/errors", "accounts/keys", "accounts/types", "logs", "vlm/errors", "vlm/types", "router/suggest",
        "router/config", "router/backends/base", "router/admission", "router/charges",
    },
    "router/fetch": {"vlm/errors", "router/config", "router/asgi", "router/images"},
    "router/images": {"vlm/errors", "vlm/image", "router/asgi"},
    # Uploaded files: it knows no format of requests, and not where answers come from.
    "router/files": {"vlm/errors", "router/config", "router/asgi"},
    # What the formats share in which a request is a conversation: it knows none of them, and not who answers.
    "router/conversation": {
        "accounts/money", "router/charges", "vlm/errors", "vlm/sampling", "vlm/types", "vlm/generations",
        "vlm/models/cards", "vlm/models/native_prompts",
        "vlm/grounding_json", "vlm/grounding_formats", "vlm/grounding_schema", "router/config", "router/asgi",
        "router/images", "router/composition/routing_report", "router/composition/wanted",
    },
    # Formats of requests and answers: they do not know each other.
    "router/chat": {
        "vlm/errors", "vlm/types", "router/config", "router/asgi", "router/composition/routing_report",
        "router/composition/wanted", "router/conversation",
    },
    "router/responses": {
        "vlm/errors", "vlm/types", "router/config", "router/asgi", "router/composition/routing_report",
        "router/composition/wanted", "router/conversation",
    },
    "router/moondream": {
        "accounts/money", "router/charges", "vlm/errors", "vlm/types", "vlm/models/cards", "router/config",
        "router/asgi", "router/conversation",
    },
    # What the status says: it knows no format of requests, and not where answers come from.
    "router/status": {"vlm/errors", "router/asgi", "router/admission", "router/backends/base"},
    # Accounts in front of the endpoints: it knows no format of requests, and not where answers come from.
    "router/accounts": {
        "accounts", "accounts/environment", "accounts/errors", "accounts/keys", "accounts/money", "accounts/prices",
        "accounts/types", "logs", "vlm/errors", "vlm/models/cards", "router/asgi", "router/config",
    },
    "router/request_metrics": {
        "vlm/errors", "vlm/types", "metrics", "router/asgi", "router/resilience",
    },
    # Spans of requests: it knows no format of them, and not where answers come from.
    "router/tracing": {
        "logs", "traces", "vlm/errors", "vlm/route", "vlm/trace", "vlm/types", "router/admission", "router/asgi",
        "router/backends/base", "router/config",
    },
    "router/charges": {"accounts/money", "accounts/prices", "accounts/types", "vlm/types"},
    "router/catalogue": {
        "accounts/money", "accounts/prices", "vlm/types", "vlm/models/cards", "router/config", "router/backends/base",
    },
    # The document about the routes: it knows what is read and sent, and is made of that.
    "router/openapi": {
        "accounts", "accounts/types", "vlm/types", "vlm/grounding_schema", "router/accounts", "router/config",
        "router/asgi",
        "router/chat", "router/conversation", "router/files", "router/moondream", "router/responses",
    },
    "router/openapi/__main__": {"router/app", "router/backends/base", "router/config", "router/openapi"},
    # Every format, put together with who answers.
    "router/endpoints": {
        "router/admission", "router/asgi", "router/backends/base", "router/chat", "router/composition",
        "router/config", "router/moondream", "router/openapi", "router/responses",
    },
    "router/app": {
        "router/endpoints",
        "accounts", "metrics", "router/accounts", "router/admission", "router/request_metrics",
        "vlm/errors", "vlm/models/cards", "logs", "serve_args", "router/config", "router/asgi", "router/backends",
        "router/backends/base", "router/catalogue", "router/chat", "router/composition", "router/conversation",
        "router/fetch",
        "router/files", "router/images", "router/moondream", "router/openapi", "router/resilience",
        "router/responses", "router/server", "router/status", "router/tracing",
        "vlm/grounding_schema",
    },
    "router/ingress": {"logs", "vlm/errors", "router/config", "router/asgi"},
    "router/server": {"vlm/errors", "router/config", "router/asgi"},
    "deployments/routing": {"deployments", "router/backends", "vlm/types"},
    "deployments/app": {"deployments", "deployments/routing", "serve_args", "vlm/errors"},
    "deployments": {
        "logs", "metrics", "serve_args", "traces", "vlm/errors", "vlm/route", "vlm/types", "vlm/engine", "vlm/loading",
        "vlm/models/base",
    },
    "deployments/check_args": {"deployments", "router/config", "router/ingress", "router/suggest", "vlm/errors"},
    "deployments/check_accounts": {
        "accounts/types", "deployments", "deployments/check_args", "router/config", "router/ingress", "router/suggest",
        "serve_args", "vlm/models/cards",
    },
    "deployments/check_cluster": {
        "deployments", "deployments/check_args", "serve_args", "router/asgi", "router/config", "router/ingress",
    },
    "deployments/check_applications": {
        "deployments", "deployments/check_accounts", "deployments/check_args", "deployments/check_cluster",
        "router/config", "router/ingress", "router/suggest", "traces", "vlm/errors",
    },
    "deployments/check": {
        "deployments", "deployments/check_accounts", "deployments/check_applications", "deployments/check_schema",
        "deployments/local", "vlm/errors",
    },
    "deployments/check_schema": {"deployments", "router/ingress", "router/suggest"},
    "deployments/environment": {"deployments/check", "router/ingress", "serve_args", "vlm/errors"},
    "deployments/local": {
        "accounts", "accounts/environment", "accounts/errors", "accounts/keys", "deployments",
        "deployments/check_applications",
        "deployments/check_args", "deployments/check_schema",
        "serve_args", "router/config", "router/ingress", "router/suggest", "vlm/errors",
    },
    # The command: a table of programs, which are imported by their names when they are asked for.
    "gigarouter": {
        "accounts", "accounts/environment", "accounts/errors", "accounts/keys", "accounts/money", "accounts/types",
        "router/accounts", "vlm/errors", "vlm/cli", "vlm/loading", "vlm/models/cards", "vlm/models/checks",
        "vlm/verify", "router/suggest",
    },
    # Trains and evaluates the bundled checkpoints; the packages do not import it. It may import single families.
    "training": {
        "vlm/errors", "vlm/types", "vlm/layers", "vlm/checkpoint", "vlm/models", "vlm/models/processor", "vlm/loading",
        "vlm/engine",
    },
    "benchmarks": {
        "accounts", "accounts/environment", "accounts/errors", "accounts/keys", "accounts/prices", "accounts/types",
        "router/accounts",
        "vlm/calibration", "vlm/consensus", "vlm/errors", "vlm/types", "vlm/checkpoint", "vlm/engine", "vlm/image",
        "vlm/loading", "vlm/models/base", "vlm/models/cards", "vlm/reference", "router/admission", "router/app",
        "router/asgi", "router/backends/base", "router/config", "router/request_metrics", "router/tracing",
        "deployments", "deployments/app", "deployments/environment", "deployments/local", "metrics", "training",
        "tests",
    },
    "benchmarks/affinity": {
        "vlm/engine", "vlm/types", "router/backends", "router/resilience", "deployments", "serve_args", "tests",
    },
    "docs/generate": {
        "vlm/types", "vlm/engine", "vlm/image", "vlm/loading", "router/app", "router/asgi", "router/backends/base",
        "router/config", "router/conversation", "training", "tests",
    },
    "examples": {"vlm", "vlm/__init__", "vlm/errors", "vlm/types", "vlm/engine", "vlm/image", "vlm/loading"},
}  # fmt: skip

# Where each library may be imported: path prefixes. What is not listed may be imported anywhere.
LIBRARIES: dict[str, tuple[str, ...]] = {
    "ray": (
        "deployments/", "router/app.py", "router/backends/controller.py", "router/backends/ray.py",
        "serve_args/cluster_auth.py", "serve_args/cluster_environment.py", "serve_args/identity.py",
        "serve_args/open_address.py",
    ),
    "torch": (
        "vlm/layers/", "vlm/models/", "vlm/engine/core.py", "vlm/engine/runner.py", "vlm/engine/kv_cache.py",
        "vlm/engine/encoder_cache.py", "vlm/engine/logits.py", "vlm/engine/read_back.py", "vlm/engine/sampler.py",
        "vlm/engine/cuda_graphs.py", "vlm/engine/gpu.py", "vlm/checkpoint/files.py", "vlm/checkpoint/weight_rules.py",
        "vlm/checkpoint/parameters.py", "vlm/checkpoint/weights_cache.py",
        "vlm/checkpoint/synthesis.py", "vlm/loading.py", "vlm/reference.py",
        "vlm/bench.py", "vlm/verify/tensors.py", "vlm/verify/run.py",
        "deployments/replica.py", "training/",
    ),
    "safetensors": ("vlm/checkpoint/files.py", "vlm/checkpoint/synthesis.py", "training/"),
    "huggingface_hub": ("vlm/checkpoint/hub.py",),
    "transformers": ("vlm/reference.py", "training/"),
    "openai": ("training/evaluation/clients.py",),
    "sqlalchemy": ("accounts/",),
    "alembic": ("accounts/migrate.py", "accounts/migrations/"),
    "redis": ("router/accounts/redis_counter.py",),
    "starlette": ("router/",),
    "opentelemetry": ("traces/exporter.py",),
    "httpcore2": ("router/fetch/",),
    "obstore": ("router/files/objects.py",),
    "multipart": ("router/files/upload.py",),
    "pydantic": ("serve_args/", "router/", "deployments/"),
    "PIL": (
        "vlm/image/", "vlm/reference.py", "vlm/models/moondream2/tiling.py", "training/",
    ),
}  # fmt: skip

# What can be imported where there is no torch, directly or through other modules: the router and everything that it
# needs, the halves of the model families that the router or a worker thread uses, and what decides in the engine.
TORCH_FREE = (
    "accounts/*.py",
    "vlm/*.py", "vlm/checkpoint/config_reader.py", "vlm/checkpoint/files.py", "vlm/decoding/*.py", "vlm/image/*.py",
    "vlm/engine/*.py", "vlm/models/cards.py", "vlm/models/checks.py", "vlm/models/image_reader.py",
    "vlm/models/processor.py", "vlm/models/*/card.py",
    "vlm/models/*/checks.py", "vlm/models/*/parsing.py", "vlm/models/*/processor.py", "vlm/models/*/tasks.py",
    "vlm/models/*/vocabulary.py", "serve_args/*.py", "logs/*.py", "traces/*.py", "router/**/*.py",
    "deployments/**/*.py",
)  # fmt: skip
NEEDS_TORCH = (
    "vlm/bench.py", "vlm/loading.py", "vlm/reference.py", "vlm/engine/core.py", "vlm/engine/encoder_cache.py",
    "vlm/engine/engine.py", "vlm/engine/kv_cache.py", "vlm/engine/logits.py", "vlm/engine/read_back.py",
    "vlm/engine/runner.py", "vlm/engine/sampler.py", "vlm/engine/cuda_graphs.py", "vlm/engine/gpu.py",
)  # fmt: skip
ENTRY_POINTS = (
    "accounts/environment.py",  # read by the entry points of the router and of the command
    "deployments/local/__main__.py",
    "gigarouter/ask.py",
    "router/ingress.py",
    "serve_args/cluster_environment.py",
)
PASSING_ON = ("vlm/decoding/process.py",)  # a part of the environment, to the processes that it starts
BROAD_EXCEPTS = (
    "accounts/teller.py",
    "vlm/decoding/child.py", "vlm/decoding/threads.py", "vlm/engine/core.py", "vlm/engine/prepare.py",
    "vlm/verify/__main__.py", "deployments/replica.py", "router/",
    "vlm/loading.py", "vlm/models/cards.py", "metrics/ray.py",
)  # fmt: skip


@dataclass(frozen=True)
class Module:
    """A source file of the product, parsed."""

    path: str
    tree: ast.Module

    @property
    def room(self) -> str:
        return room_of(self.path.removesuffix(".py"))

    def imports(self) -> Iterator[tuple[str, int]]:
        """(dotted name, line) of every import, those inside functions too."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((alias.name, node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def room_of(path: str) -> str:
    if path.startswith("tests/"):
        return "tests"
    fitting = [room for room in ROOMS if path == room or path.startswith(room + "/")]
    return max(fitting, key=len, default="vlm" if path == "vlm/__init__" else path)


@cache
def modules(*folders: str) -> tuple[Module, ...]:
    files = sorted(path for folder in folders or PRODUCT for path in (ROOT / folder).rglob("*.py"))
    return tuple(Module(path.relative_to(ROOT).as_posix(), ast.parse(path.read_text("utf-8"))) for path in files)


def everything() -> tuple[Module, ...]:
    return modules(*PRODUCT, *TOOLS)


def local_path(name: str) -> str | None:
    """The module of this repository that a dotted import means, as a path without suffix; None for other libraries."""
    parts = name.split(".")
    if parts[0] not in {*PRODUCT, *(tool.partition("/")[0] for tool in TOOLS), "tests"}:
        return None
    for end in (len(parts), len(parts) - 1):
        path = "/".join(parts[:end])
        if (ROOT / f"{path}.py").exists():
            return path
        if (ROOT / path / "__init__.py").exists():
            return f"{path}/__init__"
    return parts[0]


def report(faults: list[str]) -> None:
    assert not faults, "\n" + "\n".join(faults)


def test_rooms_import_only_what_the_table_says() -> None:
    report(
        [
            f"{module.path}:{line}: {module.room} must not import {room_of(target)}"
            for module in everything()
            for name, line in module.imports()
            if (target := local_path(name)) is not None
            and room_of(target) not in {module.room, "vlm"} | ROOMS.get(module.room, set())
        ]
    )


def test_the_table_itself_has_one_direction() -> None:
    left = {room: known - {room} for room, known in ROOMS.items()}
    while left:
        free = {room for room, known in left.items() if not known & left.keys()}
        assert free, f"rooms that import each other: {sorted(left)}"
        left = {room: known for room, known in left.items() if room not in free}


def test_every_file_belongs_to_a_room() -> None:
    report([f"{module.path}: no room" for module in everything() if module.room not in {*ROOMS, "vlm"}])


def test_libraries_are_imported_only_where_the_table_says() -> None:
    report(
        [
            f"{module.path}:{line}: {library} may only be imported in {', '.join(paths)}"
            for module in modules()
            for name, line in module.imports()
            for library, paths in LIBRARIES.items()
            if name.split(".")[0] == library and not module.path.startswith(paths)
        ]
    )


IMPORT_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    if "torch" in sys.modules:
        sys.exit(f"{name} imports torch; python -X importtime -c 'import {name}' shows how it gets there")
"""


def test_what_must_do_without_torch_does() -> None:
    """Transitively, which the tables above cannot see: in another process, one import after the other."""
    found = {path.relative_to(ROOT).as_posix() for pattern in TORCH_FREE for path in ROOT.glob(pattern)}
    paths = sorted(found - set(NEEDS_TORCH))
    names = [path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in paths]
    command = [sys.executable, "-c", IMPORT_ALL, *names]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_the_torch_tables_name_files_that_exist() -> None:
    missing = [path for path in NEEDS_TORCH if not (ROOT / path).exists()]
    assert not missing + [pattern for pattern in TORCH_FREE if not [*ROOT.glob(pattern)]]


def test_what_is_packaged_imports_nothing_that_is_not() -> None:
    report(
        [
            f"{module.path}:{line}: imports {name}"
            for module in modules(*PACKAGED)
            for name, line in module.imports()
            if name.split(".")[0] in {"training", "tests", "docs", "benchmarks", "examples"}
        ]
    )


def plays_a_part(path: Path) -> bool:
    """Whether a file is one of a model family or of a request format, which are folders of like-named files."""
    folder = path.parent
    return (folder / "model.py").exists() or (folder / "format.py").exists()


def test_no_two_modules_share_a_name() -> None:
    """Within a package, except in folders whose files play the same part in each, and what is not imported by name."""
    for package in PACKAGED:
        named: dict[str, list[str]] = defaultdict(list)
        for module in modules(package):
            path = Path(module.path)
            if not plays_a_part(ROOT / path) and path.stem not in {"__init__", "__main__"}:
                named[path.stem].append(module.path)
        report([" and ".join(paths) for paths in named.values() if len(paths) > 1])


def test_the_engine_knows_no_concrete_model() -> None:
    families = [path.name for path in (ROOT / "vlm/models").iterdir() if (path / "model.py").exists()]
    report(
        [
            f"{module.path}:{line}: imports the family {family}"
            for module in modules()
            for name, line in module.imports()
            for family in families
            if f"vlm.models.{family}" in name and not module.path.startswith((f"vlm/models/{family}/", "training/"))
        ]
    )


def test_no_model_is_named_outside_its_folder() -> None:
    """Names in code, not in prose: string constants, docstrings left out."""
    from vlm.models.cards import cards

    names = {name.lower() for card in cards().values() for name in (card.name, *card.aliases)}
    report(
        [
            f"{module.path}:{node.lineno}: names the model {node.value!r}"
            for module in modules()
            if not module.path.startswith(("vlm/models/", "training/"))
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.lower() in names
        ]
    )


def test_no_import_cycle() -> None:
    graph = {
        module.path.removesuffix(".py"): {
            target for name, _ in module.imports() if (target := local_path(name)) is not None
        }
        for module in everything()
    }
    done: set[str] = set()

    def visit(node: str, path: tuple[str, ...]) -> None:
        assert node not in path, f"import cycle: {' -> '.join((*path, node))}"
        if node not in done:
            for target in graph.get(node, set()) - {node}:
                visit(target, (*path, node))
            done.add(node)

    for node in graph:
        visit(node, ())


def test_environment_is_read_at_entry_points_only() -> None:
    report(
        [
            f"{module.path}:{node.lineno}: reads the environment"
            for module in modules()
            if module.path not in (*ENTRY_POINTS, *PASSING_ON)
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
        ]
    )


def test_broad_excepts_stand_at_process_edges_only() -> None:
    report(
        [
            f"{module.path}:{node.lineno}: catches everything"
            for module in modules()
            if not module.path.startswith(BROAD_EXCEPTS)
            for node in ast.walk(module.tree)
            if isinstance(node, ast.ExceptHandler)
            and (
                node.type is None
                or (isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"})
            )
        ]
    )


def test_nothing_runs_code_from_a_checkpoint() -> None:
    """A decoding process unpickles what its own parent sends it, and nothing else does."""
    calls = [(module, node) for module in modules() for node in ast.walk(module.tree) if isinstance(node, ast.Call)]
    report(
        [
            f"{module.path}:{node.lineno}: {ast.unparse(node.func)}"
            for module, node in calls
            if (module.path, ast.unparse(node.func)) != ("vlm/decoding/child.py", "pickle.loads")
            if ast.unparse(node.func) in {"torch.load", "pickle.load", "pickle.loads", "eval", "exec"}
            or any(keyword.arg == "trust_remote_code" for keyword in node.keywords)
        ]
    )
