"""How a request counts against rate limits: how much, and in which project.

A method names one of these functions. Each takes the request and the projects in which its caller has the permission
that the method wants, and returns what the call costs in which project.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

Projects = dict[str | None, int]
"""What a call costs in which project. None where that isn't known before the work, "" where there is none."""

UNKNOWN: Projects = {None: 1}
"""The cost of a request that can't be read."""


def of_request(request: Any, permitted: frozenset[str]) -> Projects:  # noqa: ANN401 - any message with a project
    """One call in the project that the request names, or in the only permitted one."""
    return {_named(request.project, permitted): 1}


def of_required_project(request: Any, permitted: frozenset[str]) -> Projects:  # noqa: ANN401 - likewise
    """One call in the project that the request must name."""
    return {request.project if request.project in permitted else None: 1}


def of_any_project(_request: object, permitted: frozenset[str]) -> Projects:
    """One call of a request that can't name a project: in the only permitted one, if it is the only one."""
    return {_named("", permitted): 1}


def of_no_project(_request: object, _permitted: frozenset[str]) -> Projects:
    """One call that has no project."""
    return {"": 1}


def of_batch(batch: Any, permitted: frozenset[str]) -> Projects:  # noqa: ANN401 - a service.batches.Batch
    """One call for each entry of a batch, in the entry's project."""
    if not batch.projects:
        return UNKNOWN  # no entry will be looked at
    return Counter(_named(project, permitted) for project in batch.projects)


def _named(project: str, permitted: frozenset[str]) -> str | None:
    """The project that a request means: the one it names, or the only permitted one.

    One that isn't permitted is none: the denial counts against every limit, so that it isn't a free call.
    """
    if project:
        return project if project in permitted else None
    return next(iter(permitted)) if len(permitted) == 1 else None
