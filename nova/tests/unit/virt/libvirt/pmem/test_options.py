# SPDX-License-Identifier: Apache-2.0

import dataclasses

import ddt
from oslo_config import cfg

from nova.conf import pmem_copy as pmem_options
from nova.tests.unit.virt.pmem_transfer import base
from nova.virt.libvirt.pmem import transfer

MIB = base.MIB

#: A large number for options that have no largest one.
LARGE = 10 ** 9

#: Each option that is a number, and both ends of its range.
ENDS = [(option.name, end) for option in pmem_options.OPTS
        if isinstance(option, cfg.IntOpt)
        for end in (option.type.min, option.type.max or LARGE)]


@ddt.ddt
class OptionsTestCase(base.CopyTestCase):
    """Real copies, as nova-compute asks for them."""

    @ddt.data(*ENDS)
    @ddt.unpack
    def test_both_ends(self, name, value):
        self.flags(**{name: value}, group='libvirt')
        self.add_pair(4 * MIB)
        self.receive()
        job = transfer.new_job(
            base.MIGRATION, self.socket, base.ADDRESS, self.job().devices)
        # As many extents as there may be streams.
        job = dataclasses.replace(
            job, local=self.job().local, extent=4 * MIB // max(4, job.streams))
        result = self.result(self.start_text(job.to_json()))
        self.assertEqual('done', result.last.get('event'), result.events)
        self.assert_copied()
