# SPDX-License-Identifier: Apache-2.0
"""What Tempest asks of a plugin."""

from collections.abc import Sequence
from pathlib import Path

from oslo_config import cfg
from tempest.test_discover import plugins

from pmem_copy_tempest_plugin import config


class PmemCopyPlugin(plugins.TempestPlugin):
    """The tests of moves that copy vPMEM data, and their options."""

    def load_tests(self) -> tuple[str, str]:
        """Tell Tempest where the tests are.

        :returns: the folder of the tests, and what module names start from
        """
        package = Path(__file__).resolve().parent
        return str(package / 'tests'), str(package.parent)

    def register_opts(self, conf: cfg.ConfigOpts) -> None:
        conf.register_group(config.GROUP)
        conf.register_opts(config.OPTIONS, group=config.GROUP)

    def get_opt_lists(self) -> list[tuple[str, Sequence[cfg.Opt]]]:
        return [(config.GROUP.name, config.OPTIONS)]
