# SPDX-License-Identifier: Apache-2.0

"""How a connection tells of its end."""

from nova import test
from nova.virt.pmem_transfer import connection
from nova.virt.pmem_transfer import pace
from nova.virt.pmem_transfer import processes


class ConnectionTestCase(test.NoDBTestCase):

    def test_writing_to_one_that_has_ended_tells_why(self):
        with processes.Guard() as guard:
            ended = connection.Connection(
                guard, ['sh', '-c', 'echo no route >&2; exit 255'])
            self.addCleanup(ended.close)
            self.assertTrue(ended.wait(10))
            ended.say(b'hello')
            error = self.assertRaises(
                connection.Broken, ended.send, pace.Pace(0))
        self.assertEqual(
            'it reads no more: sh ended with status 255: no route',
            str(error))
