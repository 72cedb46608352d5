"""Which replica of which application this process is, as Ray Serve names them."""

from __future__ import annotations


def identity() -> dict[str, str]:
    """For the lines that it logs; nothing in a process that is no replica."""
    from ray import serve
    from ray.serve.exceptions import RayServeException

    try:
        context = serve.get_replica_context()
    except RayServeException:
        return {}
    return {"application": context.app_name, "replica": context.replica_id.unique_id}
