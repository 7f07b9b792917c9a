# SPDX-License-Identifier: Apache-2.0

"""Whatever a request says, it is carried out or refused, and nothing breaks.

The real API answers; behind it nothing is moved.
"""

from unittest import mock

import hypothesis
from hypothesis import strategies as st
from oslo_serialization import jsonutils
from oslo_utils.fixture import uuidsentinel as uuids

from nova.compute import api as compute_api
from nova import test
from nova.tests import fixtures
from nova.tests.unit import fake_instance

FIELD = 'copy_pmem_devices'

#: Around those that brought a parameter, or began to look at the body.
VERSIONS = ('2.1', '2.25', '2.55', '2.56', '2.104', '2.105', 'latest')

#: What Nova takes for true; see ``nova.api.validation.parameter_types``.
FORMS_OF_TRUE = (True, 'true', 'True', 'TRUE', 'on', 'On', 'ON', 'yes', 'Yes',
                 'YES', '1')

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) |
    st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.text(max_size=10), inner, max_size=3), max_leaves=6)

LIKELY = st.sampled_from(FORMS_OF_TRUE + (
    False, 'false', 'no', '0', '', ' ', 'true ', 'maybe', 0, 1, -1, 1.0,
    None, [], {}, [True], {FIELD: True}, '\u0000', '\ud800', '1' * 300))

FIELDS = st.fixed_dictionaries({}, optional={
    FIELD: LIKELY | ANYTHING,
    'host': st.just('host2') | ANYTHING,
    'flavorRef': st.just('1') | ANYTHING,
    'OS-DCF:diskConfig': st.just('AUTO') | ANYTHING,
    FIELD.upper(): ANYTHING,
})

#: An action and what it says; a part of them can be carried out.
REQUESTS = st.one_of(
    st.tuples(st.just('migrate'), st.fixed_dictionaries(
        {FIELD: LIKELY}, optional={'host': st.just('host2')})),
    st.tuples(st.just('resize'), st.fixed_dictionaries(
        {FIELD: LIKELY, 'flavorRef': st.just('1')})),
    st.tuples(st.sampled_from(('migrate', 'resize')), FIELDS | ANYTHING))

SETTINGS = hypothesis.settings(
    max_examples=100, deadline=None, database=None,
    suppress_health_check=list(hypothesis.HealthCheck))


class PmemCopyRequestsTests(test.TestCase):
    """No request is answered with a failure of the server."""

    REQUIRES_LOCKING = True

    def setUp(self):
        super().setUp()
        self.api = self.useFixture(fixtures.OSAPIFixture()).admin_api
        instance = fake_instance.fake_instance_obj(
            None, uuid=uuids.server, project_id=self.api.project_id)
        self._patch(compute_api.API, 'get', return_value=instance)
        self.resize = self._patch(compute_api.API, 'resize')

    def _patch(self, owner, name, **kwargs):
        patch = mock.patch.object(owner, name, **kwargs)
        self.addCleanup(patch.stop)
        return patch.start()

    def _answer(self, text, version):
        """Send a body; return the status of the answer."""
        self.resize.reset_mock()
        self.api.microversion = version
        return self.api.api_request(
            '/servers/%s/action' % uuids.server, method='POST', body=text,
            headers={'Content-Type': 'application/json'}).status_code

    @SETTINGS
    @hypothesis.given(REQUESTS, st.sampled_from(VERSIONS))
    @hypothesis.example(('migrate', {FIELD: True}), '2.105')
    @hypothesis.example(('resize', {FIELD: 'yes', 'flavorRef': '1'}), '2.105')
    def test_any_body(self, request, version):
        action, fields = request
        status = self._answer(jsonutils.dumps({action: fields}), version)
        self.assertIn(status, (202, 400))
        self.assertEqual(status == 202, self.resize.called)
        if status == 202:
            self._assert_asked_for(fields, version)

    def _assert_asked_for(self, fields, version):
        """What is passed on is what was said."""
        said = isinstance(fields, dict) and fields.get(FIELD)
        if version in ('2.105', 'latest') and said in FORMS_OF_TRUE:
            self.assertIs(True, self.resize.call_args.kwargs[FIELD])
        else:
            self.assertNotIn(FIELD, self.resize.call_args.kwargs)

    @SETTINGS
    @hypothesis.given(st.dictionaries(
        st.sampled_from(('migrate', 'resize', FIELD)) | st.text(max_size=8),
        ANYTHING, max_size=3), st.sampled_from(VERSIONS))
    def test_any_object(self, body, version):
        self.assertLess(self._answer(jsonutils.dumps(body), version), 500)

    @SETTINGS
    @hypothesis.given(st.binary(max_size=60) | st.sampled_from((
        b'{"migrate": {"copy_pmem_devices": tru', b'{"migrate": ',
        b'{"resize": {"copy_pmem_devices": true, "copy_pmem_devices": false}}',
        b'[' * 500, b'{"migrate":' * 300, b'\xff\xfe', b'null', b'""')),
        st.sampled_from(VERSIONS))
    def test_any_bytes(self, text, version):
        self.assertLess(self._answer(text, version), 500)
