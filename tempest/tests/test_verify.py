# SPDX-License-Identifier: Apache-2.0
"""A run in which the plugin's tests did not really run has to be noticed."""

import io

import pytest
import subunit

from pmem_copy_tempest_plugin import verify

TEST = 'pmem_copy_tempest_plugin.tests.scenario.test_moves.CopyTest.test_%d'
OTHER = 'tempest.api.compute.admin.test_migrations.MigrationsAdminTest.test_1'


def stream(*events, reason=b''):
    """Return a run in subunit's format, made of pairs of test and status."""
    data = io.BytesIO()
    writer = subunit.StreamResultToBytes(data)
    for test, status in events:
        if reason and status == 'skip':
            writer.status(test_id=test, file_name='reason', file_bytes=reason,
                          eof=True, mime_type='text/plain;charset=utf8')
        writer.status(test_id=test, test_status=status)
    return data.getvalue()


def judge(*events, reason=b'', **options):
    data = io.BytesIO(stream(*events, reason=reason))
    return verify.complaints(verify.read(data), **options)


def test_no_test_at_all():
    assert judge() == [
        '0 tests of the plugin passed, and at least 1 should have']


def test_no_results():
    """What stestr prints instead of results must not pass for some."""
    data = io.BytesIO(b'No tests in repository\n')
    assert len(verify.complaints(verify.read(data))) == 1


def test_something_printed_in_between():
    data = io.BytesIO(stream((TEST % 1, 'success')) + b'Look!\n' +
                      stream((TEST % 2, 'fail')))
    assert verify.complaints(verify.read(data)) == [f'failed: {TEST % 2}']


def test_only_others():
    assert len(judge((OTHER, 'success'))) == 1


def test_only_listed():
    assert len(judge((TEST % 1, 'exists'))) == 1


def test_one_is_skipped():
    found = judge((TEST % 1, 'success'), (TEST % 2, 'skip'),
                  reason=b'[pmem_copy]copy_hang_command is not set')
    assert found == [f'skipped: {TEST % 2}: '
                     '[pmem_copy]copy_hang_command is not set']


def test_a_class_is_skipped():
    name = 'setUpClass (pmem_copy_tempest_plugin.tests.api.test_x.YTest)'
    assert judge((TEST % 1, 'success'), (name, 'skip')) == [
        f'skipped: {name}: no reason given']


@pytest.mark.parametrize('status', ['fail', 'uxsuccess'])
def test_one_fails(status):
    assert judge((TEST % 1, 'success'), (TEST % 2, status)) == [
        f'failed: {TEST % 2}']


def test_one_does_not_end():
    assert judge((TEST % 1, 'success'), (TEST % 2, 'inprogress')) == [
        f'did not end: {TEST % 2}']


def test_too_few():
    assert len(judge((TEST % 1, 'success'), at_least=2)) == 1


@pytest.mark.parametrize('status, said', [
    ('fail', []),
    ('success', [f'known to fail, and passed: {TEST % 2}']),
    ('skip', [f'skipped: {TEST % 2}: no reason given'])])
def test_known_to_fail(status, said):
    assert judge((TEST % 1, 'success'), (TEST % 2, status),
                 open_tests=['CopyTest.test_2']) == said


def test_known_to_fail_and_gone():
    assert judge((TEST % 1, 'success'), open_tests=['test_2']) == [
        'known to fail, and did not run: test_2']


def test_all_is_well():
    assert judge((TEST % 1, 'inprogress'), (TEST % 1, 'success'),
                 (TEST % 2, 'success'), (OTHER, 'skip'), at_least=2) == []


@pytest.mark.parametrize('status, exit_status', [('success', 0), ('skip', 1)])
def test_command(tmp_path, capsys, status, exit_status):
    results = tmp_path / 'results'
    results.write_bytes(stream((TEST % 1, status)))
    assert verify.main([str(results)]) == exit_status
    assert 'tests of the plugin passed' in capsys.readouterr().out
