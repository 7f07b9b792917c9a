# SPDX-License-Identifier: Apache-2.0
"""``plan.py WHAT``: break a host, or mend it. Run on the host, as root.

``fail-copies`` and ``hang-copies`` are about data that comes to this host,
``fail-starts`` about its guests, and ``mend`` undoes each.
"""

import json
import os
import sys

REGISTRY = '/var/lib/pmem-stand-ins'
FAULTS = REGISTRY + '/faults'
QEMU = '/usr/bin/qemu-system-x86_64'

_FAULTS = {
    'fail-copies': {'action': 'exit', 'status': 1, 'repeat': True,
                    'message': 'daxio: failed to perform I/O\n'},
    'hang-copies': {'action': 'hang'}}


def plan(fault: dict) -> None:
    """Let each copy to this host meet a fault at its first byte.

    What a device has further on may be zero at both ends, and is not written
    then.
    """
    with open(REGISTRY + '/namespaces.json') as known:
        names = [each['name'] for each in json.load(known)]
    for name in names:
        stem = '%s/planned-%s' % (FAULTS, name)
        if fault['action'] == 'hang':
            for end in ('.reached', '.go'):
                os.mkfifo(stem + end)
                os.chmod(stem + end, 0o666)
        with open(stem + '.new', 'w') as file:
            json.dump({'tool': 'daxio', 'device': name, 'side': 'write',
                       'at': 0} | fault, file)
        os.rename(stem + '.new', stem + '.json')


def mend() -> None:
    os.chmod(QEMU, 0o755)
    for name in sorted(os.listdir(FAULTS)):
        path = os.path.join(FAULTS, name)
        if name.endswith(('.reached', '.go')):
            # Whoever hangs waits for a word in one, and has said his in the
            # other.
            held = os.open(path, os.O_RDWR | os.O_NONBLOCK)
            if name.endswith('.go'):
                os.write(held, b'go\n')
            os.unlink(path)
            os.close(held)
        elif name.startswith('planned-'):
            os.unlink(path)


def main() -> None:
    what = sys.argv[1]
    if what == 'mend':
        mend()
    elif what == 'fail-starts':
        os.chmod(QEMU, 0o644)
    else:
        plan(_FAULTS[what])


if __name__ == '__main__':
    main()
