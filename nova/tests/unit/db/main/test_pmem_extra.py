# SPDX-License-Identifier: Apache-2.0

from oslo_utils import uuidutils

from nova import context
from nova.db.main import api as db
from nova import exception
from nova import test


class ExtraOfDeletedInstanceTestCase(test.TestCase):
    """Whoever ends a move may come after the server was deleted."""

    def setUp(self):
        super().setUp()
        self.context = context.get_admin_context()
        self.uuid = uuidutils.generate_uuid()
        db.instance_create(self.context, {'uuid': self.uuid})

    def _update(self):
        db.instance_extra_update_by_uuid(
            self.context, self.uuid, {'migration_context': None})

    def test_no_second_record_for_a_deleted_one(self):
        db.instance_destroy(self.context, self.uuid)
        self.assertRaises(exception.InstanceNotFound, self._update)
        # What was there can still be read.
        found = db.instance_get_by_uuid(
            context.get_admin_context(read_deleted='yes'), self.uuid,
            columns_to_join=['extra'])
        self.assertEqual(self.uuid, found['uuid'])

    def test_first_record_of_an_instance_that_the_database_does_not_have(self):
        """As it was before; Nova's own tests do this."""
        self.uuid = uuidutils.generate_uuid()
        self._update()
        self.assertIsNotNone(db.instance_extra_get_by_instance_uuid(
            self.context, self.uuid))

    def test_record_that_is_there(self):
        self._update()
