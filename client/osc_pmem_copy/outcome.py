# SPDX-License-Identifier: Apache-2.0

"""What became of a server whose pmem devices were to be copied.

The core commands wait for ACTIVE or VERIFY_RESIZE. A copy that fails is
rolled back, which leaves the server ACTIVE (or SHUTOFF) where it was: they
would call it complete, or wait forever. Here the answer comes from where the
server is and from Nova's own record of the action. Both are open to whoever
may resize the server; what only administrators see makes the message more
precise, and is never needed.
"""

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import enum
import time
from typing import Any

from keystoneauth1 import exceptions as keystone_exceptions
from openstack import exceptions as sdk_exceptions
from osc_lib import exceptions

from osc_pmem_copy import request

#: Seconds between two looks at the server, as in the core commands.
POLL_INTERVAL = 5

#: How many more times to look at a server that has come to rest while Nova's
#: record does not say why. Nova writes the state first, the record and the
#: fault moments later. It has to end, though: events stay unfinished forever
#: when a host dies, or when a request was rescheduled.
PATIENCE = 3

#: How often in a row a look may fail: for a minute.
LOOKS = 12

#: What the percentage is of, by the task state of the server.
PHASES = {
    'resize_prep': ' (while the server runs)',
    'resize_migrating': ' (the server is off)',
}

#: The event whose success means that the server runs on its destination.
_LAST_EVENT = 'compute_finish_resize'


class Stage(enum.Enum):
    """How far a request is."""

    MOVING = enum.auto()
    #: At rest, while the record does not say yet what happened.
    UNCLEAR = enum.auto()
    DONE = enum.auto()
    FAILED = enum.auto()


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How far a request is, and in case of failure why."""

    stage: Stage
    reason: str = ''


def judge(before: Any, now: Any, action: Any) -> Verdict:
    """Decide what became of a request.

    :param before: the server before the request was sent
    :param now: the server at present
    :param action: Nova's record of the request with its events, or None if
        there is none to be had
    """
    if now.status == 'VERIFY_RESIZE':
        return Verdict(Stage.DONE)
    if now.status == 'ERROR':
        reason = (now.fault or {}).get('message') or _failure(action)
        stage = Stage.FAILED if reason else Stage.UNCLEAR
        return Verdict(stage, reason or 'no fault is on record')
    # The API sets the task before it answers the request, so a server
    # without one is never one that has not begun.
    if now.task_state is not None:
        return Verdict(Stage.MOVING)

    # The server is at rest, and not waiting for confirmation. Either it was
    # confirmed meanwhile (Nova can be configured to do that by itself), or
    # it was rolled back, or reverted.
    finished = any(
        event.event == _LAST_EVENT and event.result == 'Success'
        for event in _events(action)
    )
    if _moved(before, now) and (finished or action is None):
        return Verdict(Stage.DONE)
    if finished:
        return Verdict(Stage.FAILED, 'it was moved and then taken back')
    if reason := _failure(action):
        return Verdict(Stage.FAILED, reason)
    # Without any record, looking again would not tell more.
    stage = Stage.FAILED if action is None else Stage.UNCLEAR
    return Verdict(stage, 'Nova has no record of the reason')


def wait(
    compute: Any,
    sent: request.Sent,
    show_progress: Callable[[int, str], None],
) -> None:
    """Return when the server has moved with its devices copied.

    :param compute: the compute client
    :param sent: the request, with the server as it was before
    :param show_progress: is told the percentage at every look, and of what:
        data is copied while the server runs, and then what has changed
    :raises: :class:`osc_lib.exceptions.CommandError` when it did not move
    """
    patience, failures = PATIENCE, 0
    while True:
        try:
            server = compute.get_server(sent.server_id)
            action = _action(compute, sent, server)
        except sdk_exceptions.NotFoundException:
            raise exceptions.CommandError(
                f'Server {sent.server_id} was deleted before it was moved.'
            ) from None
        except (
            sdk_exceptions.HttpException,
            keystone_exceptions.ConnectFailure,
        ) as error:
            failures += 1
            if not _may_pass(error) or failures == LOOKS:
                raise exceptions.CommandError(
                    f'What becomes of server {sent.server_id} could not be '
                    f'looked at; it may still be moved. {error}'
                ) from error
            time.sleep(POLL_INTERVAL)
            continue
        failures = 0
        verdict = judge(sent.before, server, action)
        if verdict.stage is Stage.DONE:
            return
        if verdict.stage is Stage.UNCLEAR:
            patience -= 1
        if verdict.stage is Stage.FAILED or patience < 0:
            reason = ' '.join(verdict.reason.split()).rstrip('.')
            raise exceptions.CommandError(
                f'Server {sent.server_id} is {server.status} and was not '
                f'moved: {reason}.'
            )
        show_progress(
            server.progress or 0, PHASES.get(server.task_state, '')
        )
        time.sleep(POLL_INTERVAL)


def _may_pass(error: Exception) -> bool:
    """Whether an error is one that a cloud has for a moment."""
    return not isinstance(error, sdk_exceptions.HttpException) or (
        (error.status_code or 0) >= 500
    )


def _moved(before: Any, now: Any) -> bool:
    """Whether the server is elsewhere, or has another size, than before.

    A resize can stay on its host, and a migration keeps the flavor.
    """
    if now.host_id and now.host_id != before.host_id:
        return True
    return bool(_shape(now) != _shape(before))


def _shape(server: Any) -> Any:
    """Return what names the flavor in the server's own view.

    It is not the flavor's id, which newer microversions do not show.
    """
    flavor = server.flavor
    return flavor and (flavor.original_name, flavor.extra_specs)


def _action(compute: Any, sent: request.Sent, server: Any) -> Any:
    """Get Nova's record of the request, or None where there is none.

    It is asked for only when it can matter, to spare the cloud the question
    in the hours that a copy may take.
    """
    moving = server.task_state is not None and server.status != 'ERROR'
    if moving or server.status == 'VERIFY_RESIZE' or sent.request_id is None:
        return None
    try:
        return compute.get_server_action(sent.request_id, sent.server_id)
    except (
        sdk_exceptions.NotFoundException,
        sdk_exceptions.ForbiddenException,
    ):
        # An operator may close this part of the API, and a database may be
        # purged. Where the server is then has to suffice.
        return None


def _events(action: Any) -> list[Any]:
    return list((action.events if action is not None else None) or [])


def _failure(action: Any) -> str:
    """Say what failed according to the record, or '' if nothing did.

    All the failures are named: the last one is often "no valid host", for
    which the reason is in those before. The details are for administrators
    only, unless the operator opened them.
    """
    return '; '.join(dict.fromkeys(_explanations(action)))


def _explanations(action: Any) -> Iterator[str]:
    failed = [event for event in _events(action) if event.result == 'Error']
    for event in sorted(failed, key=lambda event: event.finish_time or ''):
        if event.details:
            yield f'{event.event}: {event.details}'
        else:
            yield f'{event.event} failed'
