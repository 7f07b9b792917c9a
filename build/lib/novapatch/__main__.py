# SPDX-License-Identifier: Apache-2.0
"""``python -m novapatch``."""

import sys

from novapatch import cli

if __name__ == '__main__':
    sys.exit(cli.main())
