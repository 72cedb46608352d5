"""Which part of a GPU Ray has given to this replica."""

from __future__ import annotations


def gpu_fraction() -> float | None:
    """The ``num_gpus`` of this replica's ``ray_actor_options``, at most 1; None where Ray has given it no GPU.

    Ray counts such parts and limits nothing; the replica limits itself (:func:`vlm.engine.gpu.within`).
    """
    import ray  # here, so that a replica's class can be named without Ray

    if not ray.is_initialized():
        return None
    assigned: float = ray.get_runtime_context().get_assigned_resources().get("GPU", 0)
    return min(1.0, assigned) or None
