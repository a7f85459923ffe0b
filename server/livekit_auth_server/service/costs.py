"""How a request counts against rate limits: how much, and in which project.

A method names one of these functions. Each takes the request, the caller's policy and the permission that the method
wants, and returns what the call costs in which project.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from livekit_auth_server.core.policy import CallerPolicy, Permission

Projects = dict[str | None, int]
"""What a call costs in which project. None where that isn't known before the work, "" where there is none."""

UNKNOWN: Projects = {None: 1}
"""The cost of a request that can't be read."""


def of_request(request: Any, caller: CallerPolicy, permission: Permission | None) -> Projects:  # noqa: ANN401 - any message with a project
    """One call in the request's project."""
    return {_counted(request.project, caller, permission): 1}


def of_any_project(_request: object, caller: CallerPolicy, permission: Permission | None) -> Projects:
    """One call of a request that can't name a project."""
    return {_counted("", caller, permission): 1}


def of_no_project(_request: object, _caller: CallerPolicy, _permission: Permission | None) -> Projects:
    """One call that has no project."""
    return {"": 1}


def of_batch(batch: Any, caller: CallerPolicy, permission: Permission | None) -> Projects:  # noqa: ANN401 - a service.batches.Batch
    """One call for each entry of a batch, in the entry's project."""
    if not batch.projects:
        return UNKNOWN  # no entry will be looked at
    return Counter(_counted(project, caller, permission) for project in batch.projects)


def _counted(named: str, caller: CallerPolicy, permission: Permission | None) -> str | None:
    """The project of a request. None if it isn't permitted: the denial counts against every limit and isn't free."""
    project = caller.project_of(named, permission)
    return project if project in caller.permitted(permission) else None
