# SPDX-License-Identifier: Apache-2.0

"""``--wait`` tells what happened, which is not what core's would tell."""

from typing import Any

from conftest import Result
from conftest import Run
from fake_cloud import event
from fake_cloud import FakeCloud
from fake_cloud import MOVED
from fake_cloud import MOVING
from fake_cloud import SERVER_ID
import pytest

from osc_pmem_copy import outcome

RESIZE = ('server', 'resize', '--flavor', 'bigger', '--copy-pmem-devices')
MIGRATE = ('server', 'migrate', '--copy-pmem-devices')

PREPARED = event('compute_prep_resize', 'Success')
STARTED = event('compute_resize_instance', None)
FAILED = event('compute_resize_instance', 'Error')
FINISHED = event('compute_finish_resize', 'Success')

#: A server at rest where it was.
BACK: dict[str, Any] = {}
#: A server whose move Nova has confirmed by itself.
CONFIRMED = {'status': 'ACTIVE', 'hostId': 'b'}


@pytest.fixture(params=[RESIZE, MIGRATE], ids=['resize', 'migrate'])
def move(request: pytest.FixtureRequest, run: Run) -> Any:
    """Return a function that moves the server and waits."""
    return lambda: run(*request.param, '--wait', 'vm1')


def assert_failed(result: Result, status: str, *reasons: str) -> None:
    """Check that a command says in one line what became of the server."""
    assert result.status == 1
    assert 'Complete' not in result.out
    assert len(result.errors) == 1
    line = result.errors[0]
    assert line.startswith(f'Server {SERVER_ID} is {status} and was not moved')
    for reason in reasons:
        assert reason in line


class TestLooksThatFail:
    def test_for_a_moment(self, move: Any, cloud: FakeCloud) -> None:
        cloud.then = [MOVING, 502, 503, MOVING, 500, MOVED]
        result = move()
        assert (result.status, result.errors) == (0, [])

    def test_for_too_long(self, move: Any, cloud: FakeCloud) -> None:
        """The command knows nothing, and must not say that it failed."""
        cloud.then = [MOVING, 502]
        result = move()
        assert result.status == 1
        assert 'it may still be moved' in result.errors[0]
        assert 'was not moved' not in result.errors[0]
        assert len(result.errors) == 1

    def test_for_good(self, move: Any, cloud: FakeCloud) -> None:
        """What is not allowed now will not be in a moment."""
        cloud.then = [MOVING, 403, MOVED]
        result = move()
        assert result.status == 1
        assert 'it may still be moved' in result.errors[0]


class TestRolledBack:
    @pytest.mark.parametrize('status', ['ACTIVE', 'SHUTOFF'])
    def test_reason_is_open_to_the_user(
        self, move: Any, cloud: FakeCloud, status: str
    ) -> None:
        cloud.server['status'] = status
        cloud.then = [MOVING, BACK]
        cloud.events = [
            [event('compute_resize_instance', 'Error', 'no space\nthere.')]
        ]
        reason = 'compute_resize_instance: no space there.'
        assert_failed(move(), status, reason)

    @pytest.mark.parametrize('status', ['ACTIVE', 'SHUTOFF'])
    def test_reason_is_for_administrators(
        self, move: Any, cloud: FakeCloud, status: str
    ) -> None:
        cloud.server['status'] = status
        cloud.then = [MOVING, BACK]
        cloud.events = [[PREPARED, FAILED]]
        assert_failed(move(), status, 'compute_resize_instance failed')

    def test_before_the_first_look(self, move: Any, cloud: FakeCloud) -> None:
        cloud.then = [BACK]
        cloud.events = [
            [event('conductor_migrate_server', 'Error', 'No valid host.')]
        ]
        assert_failed(move(), 'ACTIVE', 'No valid host')

    def test_every_host_failed(self, move: Any, cloud: FakeCloud) -> None:
        # The last message alone would not say why.
        cloud.then = [BACK]
        cloud.events = [
            [
                event('conductor_migrate_server', 'Error', 'No valid host.'),
                event('compute_prep_resize', 'Error', 'Device is too small.'),
            ]
        ]
        assert_failed(move(), 'ACTIVE', 'No valid host', 'is too small')

    def test_record_is_written_after_the_state(
        self, move: Any, cloud: FakeCloud
    ) -> None:
        cloud.then = [MOVING, BACK]
        cloud.events = [[PREPARED, STARTED], [PREPARED, FAILED]]
        assert_failed(move(), 'ACTIVE', 'compute_resize_instance failed')

    def test_record_is_never_finished(
        self, move: Any, cloud: FakeCloud
    ) -> None:
        cloud.then = [MOVING, BACK]
        cloud.events = [[PREPARED, STARTED]]
        assert_failed(move(), 'ACTIVE', 'no record of the reason')
        looks = [r for r in cloud.requests if 'os-instance-act' in r.path]
        assert len(looks) == outcome.PATIENCE + 1

    @pytest.mark.parametrize('status', [403, 404])
    def test_no_record(
        self, move: Any, cloud: FakeCloud, status: int
    ) -> None:
        cloud.then = [MOVING, BACK]
        cloud.events_status = status
        assert_failed(move(), 'ACTIVE', 'no record of the reason')

    def test_answer_without_a_request_id(
        self, move: Any, cloud: FakeCloud
    ) -> None:
        cloud.request_id = ''
        cloud.then = [MOVING, BACK]
        assert_failed(move(), 'ACTIVE', 'no record of the reason')


class TestError:
    def test_with_a_fault(self, move: Any, cloud: FakeCloud) -> None:
        fault = {'code': 500, 'message': 'It broke.', 'created': ''}
        cloud.then = [MOVING, {'status': 'ERROR', 'fault': fault}]
        assert_failed(move(), 'ERROR', 'It broke.')

    def test_with_a_task_left_over(self, move: Any, cloud: FakeCloud) -> None:
        error = {**MOVING, 'status': 'ERROR', 'fault': {'message': 'Broke'}}
        cloud.then = [MOVING, error]
        assert_failed(move(), 'ERROR', 'Broke')

    def test_fault_is_written_after_the_state(
        self, move: Any, cloud: FakeCloud
    ) -> None:
        fault = {'code': 500, 'message': 'It broke.', 'created': ''}
        cloud.then = [
            {'status': 'ERROR'},
            {'status': 'ERROR', 'fault': fault},
        ]
        assert_failed(move(), 'ERROR', 'It broke.')

    def test_with_an_event(self, move: Any, cloud: FakeCloud) -> None:
        cloud.then = [{'status': 'ERROR'}]
        cloud.events = [[FAILED]]
        assert_failed(move(), 'ERROR', 'compute_resize_instance failed')

    def test_without_any_reason(self, move: Any, cloud: FakeCloud) -> None:
        cloud.then = [{'status': 'ERROR'}]
        assert_failed(move(), 'ERROR', 'no fault is on record')


def test_deleted_meanwhile(move: Any, cloud: FakeCloud) -> None:
    cloud.then = [MOVING, None]
    result = move()
    assert result.status == 1
    assert result.errors[0] == (
        f'Server {SERVER_ID} was deleted before it was moved.'
    )


def test_taken_back_between_two_looks(move: Any, cloud: FakeCloud) -> None:
    cloud.then = [MOVING, BACK]
    cloud.events = [[PREPARED, FINISHED]]
    assert_failed(move(), 'ACTIVE', 'moved and then taken back')


class TestMoved:
    @pytest.fixture(autouse=True)
    def _check(self, move: Any, cloud: FakeCloud) -> Any:
        yield
        result = move()
        assert (result.status, result.errors) == (0, [])
        assert result.out.splitlines()[-1] == 'Complete'

    def test_waits_for_confirmation(self, cloud: FakeCloud) -> None:
        cloud.then = [MOVING, MOVED]

    def test_record_is_written_after_the_state(
        self, cloud: FakeCloud
    ) -> None:
        cloud.then = [MOVING, MOVED]
        cloud.events = [[PREPARED, STARTED]]

    def test_moved_while_a_task_is_on(self, cloud: FakeCloud) -> None:
        # A confirmation that has begun, say.
        cloud.then = [{**MOVED, 'OS-EXT-STS:task_state': 'any'}, BACK]

    def test_stopped_server(self, cloud: FakeCloud) -> None:
        cloud.server['status'] = 'SHUTOFF'
        cloud.then = [MOVING, MOVED]

    def test_before_the_first_look(self, cloud: FakeCloud) -> None:
        cloud.then = [MOVED]

    def test_still_active_while_it_begins(self, cloud: FakeCloud) -> None:
        # This is how core's waiting would end too early.
        begun = {'status': 'ACTIVE', 'OS-EXT-STS:task_state': 'resize_prep'}
        cloud.then = [begun, MOVED]

    def test_a_later_host_took_it(self, cloud: FakeCloud) -> None:
        cloud.then = [MOVING, CONFIRMED]
        cloud.events = [
            [event('compute_prep_resize', 'Error', 'Too small.'), FINISHED]
        ]

    def test_confirmed_between_two_looks(self, cloud: FakeCloud) -> None:
        cloud.then = [MOVING, CONFIRMED]
        cloud.events = [[PREPARED, FINISHED]]

    def test_confirmed_on_the_same_host(self, cloud: FakeCloud) -> None:
        flavor = {'original_name': 'bigger', 'extra_specs': {}}
        cloud.then = [MOVING, {'flavor': flavor}]
        cloud.events = [[PREPARED, FINISHED]]

    @pytest.mark.parametrize('status', [403, 404])
    def test_confirmed_without_a_record(
        self, cloud: FakeCloud, status: int
    ) -> None:
        cloud.then = [MOVING, CONFIRMED]
        cloud.events_status = status

    def test_answer_without_a_request_id(self, cloud: FakeCloud) -> None:
        cloud.request_id = ''
        cloud.then = [MOVING, CONFIRMED]


def test_progress_is_shown(run: Run, cloud: FakeCloud) -> None:
    running = {**MOVING, 'OS-EXT-STS:task_state': 'resize_prep'}
    cloud.then = [
        running,
        *({**running, 'progress': n} for n in (7, 58)),
        *({**MOVING, 'progress': n} for n in (0, 93)),
        MOVED,
    ]
    result = run(*MIGRATE, '--wait', 'vm1')
    assert result.out == (
        '\rProgress: 7 (while the server runs)'
        '\rProgress: 58 (while the server runs)\n'
        '\rProgress: 93 (the server is off)\n'
        'Complete\n'
    )


def test_record_is_not_asked_for_in_vain(
    run: Run, cloud: FakeCloud
) -> None:
    cloud.then = [MOVING, MOVING, MOVING, MOVED]
    run(*MIGRATE, '--wait', 'vm1')
    looks = [r for r in cloud.requests if 'os-instance-act' in r.path]
    assert looks == []
