# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""The contract of daxio 1.12.1, as observed on real devices."""

import os
import random

import pytest

USAGE_ERRORS = [
    ((), 'an input file and/or an output file must be provided'),
    (('-z',), 'zeroing flag specified but no output file provided'),
    (('-z', '-i', 'f'), 'zeroing flag specified but no output file provided'),
    (('-k', '5', '-o', 'f'),
     'skip offset specified but no input file provided'),
    (('-s', '5', '-i', 'f'),
     'seek offset specified but no output file provided'),
    (('-k', '1k'), "'1k' -- invalid input offset"),
    (('-s', '1k'), "'1k' -- invalid output offset"),
    (('-s', '1k', '-k', '1k'), "'1k' -- invalid output offset"),
    (('-l', '1k'), "'1k' -- invalid length"),
    (('-l', '0x10'), "'0x10' -- invalid length"),
    (('-l', '1KB'), "'1KB' -- invalid length"),
    (('-l', '1b'), "'1b' -- invalid length"),
    (('-l', '16EB'), "'16EB' -- invalid length"),
    (('-l', '1.5K'), "'1.5K' -- invalid length"),
    (('-l', ''), "'' -- invalid length"),
    (('-b', 'n'),
     "'n' -- invalid argument of the '--clear-bad-blocks' option"),
    (('-b', 'YES'),
     "'YES' -- invalid argument of the '--clear-bad-blocks' option"),
    (('-i', 'missing'),
     "failed to open 'missing': No such file or directory"),
    (('-i', '-'), "failed to open '-': No such file or directory"),
    (('-i', '/tmp'), "failed to open '/tmp': Is a directory"),
    (('-o', '/tmp'), "failed to open '/tmp': Is a directory"),
    (('-i', 'missing', '-o', 'missing too'),
     "failed to open 'missing': No such file or directory"),
    (('-i', 'f'), 'neither input nor output is device dax'),
    (('-o', 'f'), 'neither input nor output is device dax'),
    (('-z', '-o', 'f'), 'neither input nor output is device dax'),
    (('-z', '-i', 'missing', '-o', 'f'),
     'neither input nor output is device dax'),
    (('-i', '/dev/zero'), 'neither input nor output is device dax'),
    (('-i', 'f', '-o', 'new'), 'neither input nor output is device dax'),
    (('f', '-i', 'f'), 'neither input nor output is device dax'),
]

# What parses as a length, and how many bytes it is.
LENGTHS = [
    ('0', 0), ('1', 1), ('+5', 5), ('7B', 7), ('1KiB', 1024), ('1K', 1024),
    ('1kB', 1000), ('1MiB', 2 ** 20), ('1M', 2 ** 20), ('1MB', 10 ** 6),
    ('1 KiB', 1024), ('1025', 1025), ('123457', 123457),
]


def some_bytes(length, seed=0):
    return random.Random(seed).randbytes(length)


def missing_device(bench):
    """Return the path of a device that is not there, next to real ones."""
    return os.path.join(os.path.dirname(bench.device().path), 'dax99.9')


def copied(count, name):
    return 'daxio: copied %d bytes to device "%s"\n' % (count, name)


@pytest.mark.parametrize('args,text', USAGE_ERRORS)
def test_it_refuses_and_says_why(bench, args, text):
    bench.write_file('f', b'x')
    result = bench.run('daxio', *args)
    assert (result.status, result.stderr) == (1, 'daxio: %s\n' % text)
    assert result.stdout == b''


@pytest.mark.parametrize('args', [('-x',), ('-i',), ('--badblock=no',)])
def test_unknown_options_get_the_usage(bench, args):
    result = bench.run('daxio', *args)
    assert result.status == 1
    assert '\nUsage: daxio [option] ...\n' in result.stderr


def test_the_version(bench):
    assert bench.run('daxio', '-V').stdout == b'1.12.1\n'


def test_help_goes_to_stderr(bench):
    result = bench.run('daxio', '--help')
    assert (result.status, result.stdout) == (0, b'')
    assert result.stderr.startswith('Usage: daxio [option] ...\n')


def test_without_a_device_the_output_is_made_all_the_same(bench):
    bench.write_file('f', b'x')
    bench.run('daxio', '-i', 'f', '-o', 'new')
    assert bench.mode('new') == 0o600
    assert bench.read_file('new') == b''


def test_without_a_device_an_existing_output_is_left_alone(bench):
    bench.write_file('f', b'x')
    bench.write_file('g', b'keep me')
    bench.run('daxio', '-i', 'f', '-o', 'g')
    assert bench.read_file('g') == b'keep me'


def test_a_missing_device_is_no_input(bench):
    missing = missing_device(bench)
    result = bench.run('daxio', '-i', missing)
    assert (result.status, result.stderr) == (
        1, "daxio: failed to open '%s': No such file or directory\n"
        % missing)


def test_a_missing_device_is_made_a_file(bench):
    """Whoever looks for the device from then on finds that."""
    missing = missing_device(bench)
    result = bench.run('daxio', '-o', missing, stdin=b'x')
    assert (result.status, result.stderr) == (
        1, 'daxio: neither input nor output is device dax\n')
    assert bench.mode(missing) == 0o600
    assert bench.read_file(missing) == b''
    bench.shell('rm %s' % missing)


def test_a_missing_input_leaves_no_output(bench):
    bench.run('daxio', '-i', 'missing', '-o', 'new')
    assert bench.mode('new') is None


@pytest.mark.parametrize('length', [0, 1, 1000, 1024 * 1024 + 1])
def test_a_short_input_is_a_success(bench, length):
    device = bench.device()
    bench.poke(device, 0, b'\xff' * (length + 1))
    data = some_bytes(length)
    result = bench.run('daxio', '-o', device.path, stdin=data)
    assert result.status == 0
    assert result.stderr == (
        'daxio: requested size %d larger than source\n' % device.size
        + copied(length, device.path))
    assert bench.peek(device, 0, length + 1) == data + b'\xff'


def test_a_short_file_is_a_success(bench):
    device = bench.device()
    bench.write_file('f', b'abc')
    result = bench.run('daxio', '-i', 'f', '-o', device.path)
    assert result.status == 0
    assert 'requested size' in result.stderr
    assert copied(3, device.path) in result.stderr


def test_a_whole_device_comes_from_stdin(bench):
    device = bench.device()
    data = some_bytes(device.size)
    result = bench.run('daxio', '-o', device.path, stdin=data)
    assert (result.status, result.stderr) == (
        0, copied(device.size, device.path))
    assert bench.peek(device, 0, device.size) == data


def test_what_does_not_fit_is_left_in_the_pipe(bench):
    device = bench.device()
    result = bench.shell(
        'head -c %d /dev/zero | daxio -o %s; echo ${PIPESTATUS[*]}'
        % (device.size + 10 * 1024 * 1024, device.path))
    assert result.stdout == b'141 0\n'
    assert result.stderr == copied(device.size, device.path)


def test_a_longer_file_is_silently_cut(bench):
    device = bench.device()
    data = some_bytes(device.size + 1)
    bench.write_file('f', data)
    result = bench.run('daxio', '-i', 'f', '-o', device.path)
    assert (result.status, result.stderr) == (
        0, copied(device.size, device.path))
    assert bench.peek(device, 0, device.size) == data[:-1]


def test_a_device_to_stdout(bench):
    device = bench.device()
    data = some_bytes(device.size)
    bench.poke(device, 0, data)
    result = bench.run('daxio', '-i', device.path)
    assert (result.status, result.stderr) == (
        0, copied(device.size, 'STDOUT'))
    assert result.stdout == data


@pytest.mark.parametrize('text,length', LENGTHS)
def test_lengths(bench, text, length):
    device = bench.device()
    bench.poke(device, 0, b'\xff' * (length + 1))
    result = bench.run('daxio', '-i', device.path, '-l', text)
    assert (result.status, result.stderr) == (0, copied(length, 'STDOUT'))
    assert len(result.stdout) == length


def test_a_length_beyond_the_device_is_silently_clipped(bench):
    device = bench.device()
    length = str(device.size + 1)
    result = bench.run('daxio', '-i', device.path, '-l', length)
    assert (result.status, result.stderr) == (
        0, copied(device.size, 'STDOUT'))
    result = bench.run('daxio', '-z', '-o', device.path, '-l', length)
    assert (result.status, result.stderr) == (
        0, copied(device.size, device.path))
    result = bench.run(
        'daxio', '-o', device.path, '-l', length,
        stdin=bytes(device.size + 1))
    assert (result.status, result.stderr) == (
        0, copied(device.size, device.path))


def test_a_smaller_target_silently_clips(bench):
    small, large = bench.device(), bench.device(extra=2 ** 21)
    bench.poke(large, 0, b'start')
    result = bench.run('daxio', '-i', large.path, '-o', small.path)
    assert (result.status, result.stderr) == (
        0, copied(small.size, small.path))
    assert bench.peek(small, 0, 5) == b'start'


def test_a_larger_target_keeps_its_end(bench):
    small, large = bench.device(), bench.device(extra=2 ** 21)
    bench.poke(large, small.size, b'end')
    result = bench.run('daxio', '-i', small.path, '-o', large.path)
    assert (result.status, result.stderr) == (
        0, copied(small.size, large.path))
    assert bench.peek(large, small.size, 3) == b'end'


@pytest.mark.parametrize('option', ['-i', '-o'])
def test_an_offset_equal_to_the_size_fails(bench, option):
    device = bench.device()
    offset = '-k' if option == '-i' else '-s'
    result = bench.run(
        'daxio', option, device.path, offset, str(device.size))
    assert (result.status, result.stderr) == (
        1, 'daxio: setup_device:415: mmap: Invalid argument\n')


@pytest.mark.parametrize('option', ['-i', '-o'])
def test_an_offset_beyond_the_size_fails(bench, option):
    device = bench.device()
    offset = '-k' if option == '-i' else '-s'
    beyond = device.size + 4096
    result = bench.run('daxio', option, device.path, offset, str(beyond))
    assert (result.status, result.stderr) == (
        1, "daxio: '%d' -- offset beyond device size (%d)\n"
        % (beyond, device.size))


@pytest.mark.parametrize('offset,length', [
    (1, 1), (4095, 2), (4097, 1024 * 1024 + 3), (1024 * 1024 - 1, 2)])
def test_unaligned_places_are_exact(bench, offset, length):
    source, target = bench.device(), bench.device()
    data = some_bytes(length)
    bench.poke(source, offset, data)
    bench.poke(target, 0, b'\xff' * (length + 100))
    result = bench.run(
        'daxio', '-i', source.path, '-k', str(offset), '-l', str(length),
        '-o', target.path, '-s', '7')
    assert (result.status, result.stderr) == (0, copied(length, target.path))
    assert bench.peek(target, 0, length + 8) == (
        b'\xff' * 7 + data + b'\xff')


def test_skip_and_seek_in_files(bench):
    device = bench.device()
    bench.write_file('in', b'0123456789')
    result = bench.run(
        'daxio', '-i', 'in', '-k', '4', '-o', device.path, '-s', '2')
    assert copied(6, device.path) in result.stderr
    assert bench.peek(device, 0, 9) == b'\0\x00456789\0'
    bench.write_file('out', b'abcdefgh')
    result = bench.run('daxio', '-i', device.path, '-k', '2', '-l', '3',
                       '-o', 'out', '-s', '1')
    assert (result.status, result.stderr) == (0, copied(3, 'out'))
    assert bench.read_file('out') == b'a456efgh'  # it is not truncated


def test_a_new_output_file_is_private(bench):
    device = bench.device()
    bench.run('daxio', '-i', device.path, '-o', 'new', '-l', '10')
    assert bench.mode('new') == 0o600
    assert bench.read_file('new') == bytes(10)


def test_zeroing_a_device(bench):
    device = bench.device()
    bench.poke(device, 0, b'\xff' * device.size)
    result = bench.run('daxio', '-z', '-o', device.path)
    assert (result.status, result.stderr) == (
        0, copied(device.size, device.path))
    assert bench.peek(device, 0, device.size) == bytes(device.size)


def test_zeroing_a_part(bench):
    device = bench.device()
    bench.poke(device, 0, b'\xff' * 100)
    result = bench.run(
        'daxio', '-z', '-o', device.path, '-s', '10', '-l', '20')
    assert (result.status, result.stderr) == (0, copied(20, device.path))
    assert bench.peek(device, 0, 100) == (
        b'\xff' * 10 + bytes(20) + b'\xff' * 70)


@pytest.mark.parametrize('args', [(), ('-z',), ('-b', 'yes')])
def test_only_root_may_clear_bad_blocks(bench, args):
    device = bench.device()
    bench.poke(device, 0, b'keep')
    result = bench.run(
        'daxio', *args, '-o', device.path, stdin=b'x', user='nova')
    assert result.status == 1
    assert result.stderr.startswith(
        'daxio: failed to clear bad blocks on "%s"\n' % device.path)
    assert bench.peek(device, 0, 4) == b'keep'


@pytest.mark.parametrize('args', [('-z',), ()])
def test_an_owner_writes_when_bad_blocks_are_left_alone(bench, args):
    device = bench.device()
    bench.poke(device, 0, b'old')
    result = bench.run(
        'daxio', '-b', 'no', *args, '-o', device.path, '-l', '3',
        stdin=bytes(3), user='nova')
    assert (result.status, result.stderr) == (0, copied(3, device.path))
    assert bench.peek(device, 0, 3) == bytes(3)


def test_an_owner_reads(bench):
    device = bench.device()
    result = bench.run('daxio', '-i', device.path, user='nova')
    assert (result.status, len(result.stdout)) == (0, device.size)


@pytest.mark.parametrize('option', ['-i', '-o'])
def test_a_device_is_opened_for_writing_on_either_side(bench, option):
    device = bench.device()
    bench.shell('chmod 400 %s' % device.path)
    result = bench.run('daxio', option, device.path, user='nova')
    bench.shell('chmod 600 %s' % device.path)
    assert (result.status, result.stderr) == (
        1, "daxio: failed to open '%s': Permission denied\n" % device.path)


def test_a_file_is_opened_for_writing_even_as_input(bench):
    device = bench.device()
    bench.write_file('f', b'x')
    bench.shell('chmod 444 f')
    result = bench.run('daxio', '-b', 'no', '-i', 'f', '-o', device.path,
                       user='nova')
    assert (result.status, result.stderr) == (
        1, "daxio: failed to open 'f': Permission denied\n")


def test_stdin_need_not_be_writable(bench):
    device = bench.device()
    bench.write_file('f', b'abc')
    result = bench.shell('chmod 444 f; daxio -o %s < f' % device.path)
    assert result.status == 0
    assert bench.peek(device, 0, 4) == b'abc\0'


def test_a_device_to_a_device_through_a_pipe(bench):
    source, target = bench.device(), bench.device()
    data = some_bytes(source.size)
    bench.poke(source, 0, data)
    result = bench.shell('daxio -i %s | daxio -o %s; echo ${PIPESTATUS[*]}'
                         % (source.path, target.path))
    assert result.stdout == b'0 0\n'
    assert bench.peek(target, 0, target.size) == data


def test_when_the_feeder_is_killed_that_is_a_success(bench):
    """The end of a pipe is an end, whatever it came from."""
    device = bench.device()
    result = bench.shell(
        '{ head -c 1000 /dev/zero; kill -9 $BASHPID; } | daxio -o %s;'
        'echo ${PIPESTATUS[*]}' % device.path)
    assert result.stdout == b'137 0\n'
    assert result.stderr == (
        'daxio: requested size %d larger than source\n' % device.size
        + copied(1000, device.path))


def test_when_the_reader_goes_away(bench):
    device = bench.device()
    result = bench.shell(
        'daxio -i %s | head -c 1 > f; echo ${PIPESTATUS[0]}' % device.path)
    assert (result.stdout, result.stderr) == (b'141\n', '')


def test_when_the_reader_goes_away_and_nobody_minds_sigpipe(bench):
    device = bench.device()
    result = bench.shell(
        "trap '' PIPE; daxio -i %s | head -c 1 > f; echo ${PIPESTATUS[0]}"
        % device.path)
    assert (result.stdout, result.stderr) == (
        b'1\n', 'daxio: do_io:528: write: Broken pipe\n'
                'daxio: failed to perform I/O\n')


def test_a_terminated_daxio_says_nothing(bench):
    device = bench.device()
    result = bench.shell(
        'mkfifo p; exec 3<>p; daxio -o %s <p & pid=$!;'  # waits for input
        'kill $pid; wait $pid; echo $?' % device.path)
    assert (result.stdout, result.stderr) == (b'143\n', '')


def test_several_at_once(bench):
    """There is no locking, whoever uses the device."""
    device = bench.device()
    result = bench.shell(
        'daxio -i {0} -o copy & daxio -z -o {0}; wait $!'.format(device.path))
    assert result.status == 0
