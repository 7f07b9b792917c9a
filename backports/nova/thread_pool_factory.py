# SPDX-License-Identifier: Apache-2.0

"""What Nova 34 has under this name, as far as copying vPMEM needs it.

Nova 33 has the same pools in ``nova.utils``.
"""

import enum

from nova import utils

#: Threads of the pool for long tasks, should no compute manager have made it.
_SIZE = 1


class ExecutorType(enum.Enum):
    """Which pool of threads a function runs in."""

    LONG_TASK = enum.auto()


def spawn_on(executor_type, func, *args, **kwargs):
    """Run a function in a thread of a pool, and return its Future."""
    if executor_type is not ExecutorType.LONG_TASK:
        raise ValueError('there is no pool %s' % executor_type)
    return utils.spawn_on(
        utils.get_long_task_executor(_SIZE), func, *args, **kwargs)


def spawn(func, *args, **kwargs):
    """Run a function in a thread of the pool for short ones."""
    return utils.spawn(func, *args, **kwargs)
