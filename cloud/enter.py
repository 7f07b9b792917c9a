# SPDX-License-Identifier: Apache-2.0
"""``python -m cloud.enter HOST COMMAND …``: run a command on a host."""

import os
import sys

from cloud.host import environment
from cloud.host import Failed
from cloud.host import Host


def main() -> None:
    name, *command = sys.argv[1:]
    host = Host(name, '')
    try:
        host.find()
    except Failed as error:
        sys.exit(str(error))
    words = host.command(*command)
    os.execvpe(words[0], words, environment('root') | {
        'TERM': os.environ.get('TERM', 'dumb')})


if __name__ == '__main__':
    main()
