# SPDX-License-Identifier: Apache-2.0
"""The host with everything but the compute services."""

from collections import abc
from concurrent import futures
import contextlib
import hashlib
import http.client
import json
import pathlib
import shutil
import socket
import subprocess
import time

from cloud import ENV
from cloud.host import Failed
from cloud.host import Host
from cloud.host import say
from cloud.host import Service
from cloud.host import until
from cloud import ini
from cloud import WORK

ADDRESS = '127.0.0.1'
PASSWORD = 'secret'
RABBIT = 'rabbit://guest:guest@%s:5672/' % ADDRESS
_DATA = '/var/lib/cloud-mysql'
_SOCKET = '/run/mysqld/mysqld.sock'

#: The ports of the APIs, by the name of the service's user.
PORTS = {'keystone': 5000, 'placement': 8778, 'glance': 9292,
         'neutron': 9696, 'nova': 8774}

_WSGI = {'keystone': 'keystone.wsgi.api', 'placement': 'placement.wsgi.api',
         'glance': 'glance.wsgi.api', 'neutron': 'neutron.wsgi.api',
         'nova': 'nova.wsgi.osapi_compute'}

_DATABASES = ('keystone', 'placement', 'glance', 'neutron', 'nova_api',
              'nova', 'nova_cell0')


def url(service: str) -> str:
    """Return where a service answers."""
    return 'http://%s:%d' % (ADDRESS, PORTS[service])


def database(name: str) -> str:
    return 'mysql+pymysql://root@localhost/%s?unix_socket=%s' % (name, _SOCKET)


def auth(user: str, project: str = 'service') -> dict[str, str]:
    """Return how a service's user logs in."""
    return {'auth_type': 'password', 'auth_url': url('keystone') + '/v3',
            'username': user, 'password': PASSWORD, 'project_name': project,
            'user_domain_name': 'Default', 'project_domain_name': 'Default',
            'region_name': 'RegionOne'}


def token_auth(user: str) -> dict[str, str]:
    """Return how an API looks at its callers' tokens."""
    return auth(user) | {'www_authenticate_uri': url('keystone'),
                         'memcached_servers': ADDRESS + ':11211'}


def nova_conf() -> dict[str, dict[str, object]]:
    """Return what all of Nova's services are configured with."""
    return {
        'DEFAULT': {'transport_url': RABBIT, 'my_ip': ADDRESS,
                    'state_path': '/var/lib/nova'},
        'oslo_concurrency': {'lock_path': '/var/lib/nova/tmp'},
        'keystone_authtoken': token_auth('nova'),
        'service_user': auth('nova') | {'send_service_user_token': 'true'},
        'placement': auth('placement'),
        'neutron': auth('neutron'),
        'glance': auth('glance') | {'num_retries': 2},
        'barbican': {'auth_endpoint': url('keystone') + '/v3'},
        'vnc': {'enabled': 'false'},
        'conductor': {'workers': 1},
        'scheduler': {'workers': 1},
    }


class Controller(Host):
    """Database, broker, and the APIs with what stands behind them."""

    def __init__(self) -> None:
        super().__init__('controller', ADDRESS)
        self.services = {each.name: each for each in self._describe()}

    def _describe(self) -> abc.Iterator[Service]:
        """Yield all that runs here, in the order in which it starts."""
        # What is in a cache of the kernel's lives as long as this machine.
        yield self.service(
            'mariadb', '/usr/sbin/mariadbd', '--no-defaults', '--user=mysql',
            '--datadir=' + _DATA, '--socket=' + _SOCKET, '--skip-networking',
            '--innodb-flush-log-at-trx-commit=0', '--max-connections=500',
            '--innodb-buffer-pool-size=128M', '--skip-name-resolve')
        yield self.service(
            'rabbitmq', '/usr/lib/rabbitmq/bin/rabbitmq-server',
            user='rabbitmq', HOME='/var/lib/cloud-rabbit',
            RABBITMQ_NODENAME='rabbit@localhost',
            RABBITMQ_NODE_IP_ADDRESS=ADDRESS,
            RABBITMQ_MNESIA_BASE='/var/lib/cloud-rabbit',
            RABBITMQ_LOGS='-', ERL_EPMD_ADDRESS=ADDRESS,
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=(
                '-kernel inet_dist_use_interface {127,0,0,1} +S 1:1'),
            RABBITMQ_ENABLED_PLUGINS_FILE='/dev/null')
        # Or keystone is asked of each request's token.
        yield self.service(
            'memcached', 'memcached', '-u', 'nobody', '-l', ADDRESS)
        for name, port in PORTS.items():
            yield self.service(
                name + '-api', 'uwsgi', '--http-socket',
                '%s:%d' % (ADDRESS, port), '--module',
                _WSGI[name] + ':application', '--master', '--die-on-term',
                '--processes', '1', '--threads', '8', '--enable-threads',
                '--lazy-apps', '--need-app', '--thunder-lock',
                '--buffer-size', '65535', '--add-header', 'Connection: close',
                '--procname-prefix', name + ' ', '--disable-logging')
        for name in ('nova-conductor', 'nova-scheduler'):
            yield self.service(name, name, '--debug', '--config-file',
                               '/etc/nova/nova.conf')

    def configure(self) -> None:
        """Write the configuration of everything."""
        for name in ('nova', 'neutron', 'glance', 'keystone'):
            data = ENV / 'etc' / name
            if data.is_dir():
                shutil.copytree(data, self.path('/etc/' + name),
                                dirs_exist_ok=True)
        for folder in ('/var/lib/nova/tmp', '/var/lib/neutron/tmp',
                       '/var/lib/glance/images', '/etc/keystone/fernet-keys',
                       '/etc/keystone/credential-keys'):
            self.path(folder).mkdir(parents=True, exist_ok=True)
        common = {'DEFAULT': {'transport_url': RABBIT, 'debug': 'false'}}
        self._conf('keystone', common, {
            'database': {'connection': database('keystone')},
            'token': {'provider': 'fernet', 'expiration': 7200},
            'fernet_tokens': {'key_repository': '/etc/keystone/fernet-keys'},
            'credential': {'key_repository': '/etc/keystone/credential-keys'},
            'cache': {'enabled': 'true', 'backend': 'dogpile.cache.memory'}})
        self._conf('placement', {
            'placement_database': {'connection': database('placement')},
            'keystone_authtoken': token_auth('placement')})
        self._conf('glance-api', common, {
            'DEFAULT': {'enabled_backends': 'file:file'},
            'database': {'connection': database('glance')},
            'keystone_authtoken': token_auth('glance'),
            'paste_deploy': {'flavor': 'keystone'},
            'glance_store': {'default_backend': 'file'},
            'file': {'filesystem_store_datadir': '/var/lib/glance/images'}})
        self._conf('neutron', common, {
            'DEFAULT': {'core_plugin': 'ml2', 'service_plugins': 'router',
                        'auth_strategy': 'keystone', 'rpc_workers': 0,
                        'notify_nova_on_port_status_changes': 'false',
                        'notify_nova_on_port_data_changes': 'false'},
            'oslo_concurrency': {'lock_path': '/var/lib/neutron/tmp'},
            'database': {'connection': database('neutron')},
            'keystone_authtoken': token_auth('neutron')})
        self.write('/etc/neutron/plugins/ml2/ml2_conf.ini', ini.text({
            'ml2': {'type_drivers': 'local', 'tenant_network_types': 'local',
                    'mechanism_drivers': 'logger',
                    'extension_drivers': 'port_security'}}))
        self._conf('nova', nova_conf(), {
            'api_database': {'connection': database('nova_api')},
            'database': {'connection': database('nova')},
            'scheduler': {'discover_hosts_in_cells_interval': -1},
            'filter_scheduler': {'track_instance_changes': 'false'}})

    def _conf(self, name: str, *parts: ini.Sections) -> None:
        self.write('/etc/%s/%s.conf' % (name.split('-')[0], name),
                   ini.text(ini.merged(*parts)))

    # What the services stand on

    def start_database(self) -> None:
        """Start MariaDB; with full databases, if an earlier run left some."""
        self.run('install', '-d', '-o', 'mysql', '/run/mysqld')
        self.has_schemas = _cache().exists()
        if self.has_schemas:
            self.run('tar', 'xf', _cache(), '-C', '/')
        else:
            self.run('mariadb-install-db', '--no-defaults', '--user=mysql',
                     '--auth-root-authentication-method=normal',
                     '--skip-test-db', '--datadir=' + _DATA)
        self.services['mariadb'].start()
        self.await_database()
        if not self.has_schemas:
            self.run('mariadb', '--no-defaults', '-S', _SOCKET, '-e', ' '.join(
                'CREATE DATABASE %s CHARACTER SET utf8mb3;' % name
                for name in _DATABASES))

    def await_database(self) -> None:
        until(self._database_answers, 'MariaDB does not answer')

    def _database_answers(self) -> bool:
        return self.run('mariadb-admin', '--no-defaults', '-S', _SOCKET,
                        'ping', check=False).returncode == 0

    def start_broker(self) -> None:
        self.services['memcached'].start()
        self.run('install', '-d', '-o', 'rabbitmq', '/var/lib/cloud-rabbit',
                 '/var/log/cloud/rabbit')
        self.services['rabbitmq'].start()
        self.await_broker()

    def await_broker(self) -> None:
        until(lambda: listens(ADDRESS, 5672), 'RabbitMQ does not listen')

    # The services

    def create_schemas(self) -> None:
        """Fill the databases; each takes a while, and two run at once."""
        def keystone() -> None:
            self.run('keystone-manage', 'db_sync')
            for keys in ('fernet', 'credential'):
                self.run('keystone-manage', keys + '_setup',
                         '--keystone-user', 'root', '--keystone-group', 'root')
            self.run('keystone-manage', 'bootstrap',
                     '--bootstrap-password', PASSWORD,
                     '--bootstrap-region-id', 'RegionOne',
                     '--bootstrap-public-url', url('keystone') + '/v3',
                     '--bootstrap-internal-url', url('keystone') + '/v3')

        def nova() -> None:
            self.run('nova-manage', 'api_db', 'sync')
            self.run('nova-manage', 'cell_v2', 'map_cell0',
                     '--database_connection', database('nova_cell0'))
            self.run('nova-manage', 'db', 'sync')
            self.run('nova-manage', 'cell_v2', 'create_cell', '--name',
                     'cell1')

        def neutron() -> None:
            self.run('neutron-db-manage', '--config-file',
                     '/etc/neutron/neutron.conf', 'upgrade', 'heads')

        def others() -> None:
            self.run('placement-manage', 'db', 'sync')
            self.run('glance-manage', '--config-file',
                     '/etc/glance/glance-api.conf', 'db_sync')

        together(neutron, nova, keystone, others)

    def keep_schemas(self) -> None:
        """Leave the databases, as they are now, to later runs."""
        self.services['mariadb'].stop()
        kept = _cache()
        kept.parent.mkdir(exist_ok=True)
        for old in kept.parent.iterdir():
            old.unlink()
        subprocess.run(
            ['tar', 'cf', kept.with_suffix('.new'), '-C', self.root,
             *(folder.lstrip('/') for folder in (
                 _DATA, '/etc/keystone/fernet-keys',
                 '/etc/keystone/credential-keys'))], check=True)
        kept.with_suffix('.new').rename(kept)
        self.services['mariadb'].start()
        self.await_database()

    def start_apis(self) -> None:
        for name in PORTS:
            self.services[name + '-api'].start()

    def await_apis(self) -> None:
        for name in PORTS:
            self.await_api(name)

    def await_api(self, name: str) -> None:
        service = self.services[name + '-api']

        def is_up() -> bool:
            if not service.runs:
                raise Failed('%s ended; see %s' % (service.name, service.log))
            return answers(name)
        until(is_up, '%s does not answer' % service.name, timeout=120)

    @contextlib.contextmanager
    def configured(self, name: str,
                   **options: object) -> abc.Iterator[None]:
        """Have one of Nova's services run with other options for a while.

        :param name: of the service
        :param options: of the section ``[DEFAULT]``
        """
        conf = self.path('/etc/nova/nova.conf').read_text()
        with self.replaced('/etc/nova/nova.conf', '%s\n%s' % (
                conf, ini.text({'DEFAULT': options}))):
            self._restart(name)
            yield
        self._restart(name)

    def _restart(self, name: str) -> None:
        self.services[name].stop()
        self.services[name].start()
        if name.endswith('-api'):
            self.await_api(name.removesuffix('-api'))

    def short_token(self, seconds: int = 30) -> tuple[str, float]:
        """Return a token of the administrator, and when it expires.

        It comes from a second keystone, which dies with that.
        """
        conf = self.path('/etc/keystone/keystone.conf').read_text()
        self.write('/etc/keystone/short.conf', conf + ini.text(
            {'token': {'expiration': seconds}}))
        command = [*self.services['keystone-api'].command]
        port = PORTS['keystone'] + 1
        command[2] = '%s:%d' % (ADDRESS, port)
        second = self.service('keystone-short', *command,
                              OS_KEYSTONE_CONFIG_FILES='short.conf',
                              OS_KEYSTONE_CONFIG_DIR='/etc/keystone')
        second.start()
        try:
            until(lambda: listens(ADDRESS, port), 'keystone does not listen')
            return _log_in(port), time.time() + seconds
        finally:
            second.kill()

    def start_nova(self) -> None:
        for name in ('nova-conductor', 'nova-scheduler'):
            self.services[name].start()
        # A nova-compute that finds no conductor looks again much later.
        conductor = self.services['nova-conductor']
        until(lambda: 'Creating RPC server for service' in conductor.text(),
              'nova-conductor does not start', 120)

    def repair(self) -> None:
        """Start what does not run; without waiting if all does."""
        gone = [name for name, service in self.services.items()
                if not service.runs]
        for name in gone:
            self.services[name].start()
            if name == 'mariadb':
                self.await_database()
            elif name == 'rabbitmq':
                self.await_broker()

    def discover(self, hosts: int) -> None:
        """Take compute hosts into the cell, when all have come up."""
        def found() -> bool:
            listed = self.run('nova-manage', 'cell_v2', 'discover_hosts',
                              '--verbose')
            return listed.stdout.count('Creating host mapping') > 0
        until(found, 'nova-compute does not come up', interval=0.5)


def _cache() -> pathlib.Path:
    """Return where the databases of these very packages are kept."""
    installed = sorted(each.name for each in ENV.glob(
        'lib/python3*/site-packages/*.dist-info'))
    key = hashlib.sha256('\n'.join(
        installed + list(_DATABASES)).encode()).hexdigest()
    return WORK / 'cache' / ('databases-%s.tar' % key[:16])


def together(*jobs) -> None:
    """Do several things at once; the first failure is raised."""
    with futures.ThreadPoolExecutor(len(jobs)) as pool:
        for done in [pool.submit(timed, job) for job in jobs]:
            done.result()


def timed(job) -> None:
    begun = time.monotonic()
    job()
    say('  %s: %.1f s' % (job.__name__.replace('_', ' '),
                          time.monotonic() - begun))


def listens(address: str, port: int) -> bool:
    """Whether something takes connections there."""
    try:
        with socket.create_connection((address, port), 1):
            return True
    except OSError:
        return False


def _log_in(port: int) -> str:
    """Return a token of the administrator, from a keystone at a port."""
    connection = http.client.HTTPConnection(ADDRESS, port, timeout=60)
    domain = {'name': 'Default'}
    with contextlib.closing(connection):
        connection.request('POST', '/v3/auth/tokens', json.dumps({'auth': {
            'identity': {'methods': ['password'], 'password': {'user': {
                'name': 'admin', 'password': PASSWORD, 'domain': domain}}},
            'scope': {'project': {'name': 'admin', 'domain': domain}}}}),
            {'Content-Type': 'application/json'})
        return connection.getresponse().getheader('X-Subject-Token')


def answers(service: str) -> bool:
    """Whether an API answers at all."""
    connection = http.client.HTTPConnection(ADDRESS, PORTS[service],
                                            timeout=10)
    try:
        connection.request('GET', '/')
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


__all__ = ['Controller', 'Failed']
