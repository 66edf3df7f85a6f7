import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { readConfigFile } from './config-file.ts';
import { daemonDefaults, readConfiguration, usualRoot } from './configuration.ts';
import { settings } from './settings.ts';

/** Reads settings from a file with this text. */
async function inFile(text: string) {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-config-'));
  const path = join(directory, 'podvm.yaml');
  try {
    await writeFile(path, text);
    return await readConfigFile(path);
  } finally {
    await rm(directory, { recursive: true });
  }
}

/** Lets the code take this process for one of that user, also where another user runs the tests. */
function actAs(uid: number, t: TestContext): void {
  const before = process.getuid ?? (() => 0);
  t.after(() => void (process.getuid = before));
  process.getuid = () => uid;
}

test('a file with an unknown key, a list, or invalid YAML is refused, with the known keys', async () => {
  await assert.rejects(readConfigFile('/nowhere/podvm.yaml'), { kind: 'notFound' });
  await assert.rejects(inFile('sokcet: /x\n'), { kind: 'invalid', message: /sokcet/, fix: /criSocket/ });
  await assert.rejects(inFile('pool: [1]\n'), { kind: 'invalid', message: /pool/ });
  await assert.rejects(inFile('- pool\n'), { kind: 'invalid' });
  await assert.rejects(inFile('pool: {'), { kind: 'invalid', message: /not YAML/ });
});

test('faults of a file are reported in a sentence, with a similar setting', async () => {
  const says = (text: string, sentence: string) =>
    assert.rejects(inFile(text), ({ message }: Error) => {
      assert.equal(message.replace(/^Cannot use the configuration \S+: /, ''), sentence);
      return true;
    });
  await says('rot: /x\n', '`rot` is not a setting; did you mean root?');
  await says('machinememorymib: 300\n', '`machinememorymib` is not a setting; did you mean machineMemoryMiB?');
  await says('colour: red\n', '`colour` is not a setting');
  await says('"a\\e[2J": 1\n', '`a\\u001b[2J` is not a setting');
  await says('pool: [1]\n', '`pool` must be a string or a number, got a list');
  await says('pool: {a: 1}\n', '`pool` must be a string or a number, got a mapping');
  await says('pool:\n', '`pool` must be a string or a number, got nothing');
  await says('console: true\n', '`console` must be a string or a number, got true');
  await says('- pool\n', 'it is not a mapping of settings, one `key: value` per line');
  await says('pool\n', 'it is not a mapping of settings, one `key: value` per line');
  const absent = {
    message: 'Cannot read the configuration /nowhere/podvm.yaml: no such file',
    fix: /--config/,
  };
  await assert.rejects(readConfigFile('/nowhere/podvm.yaml'), absent);
});

test('an invalid value is refused with the name of its setting or variable', (t) => {
  actAs(0, t);
  const wrong = [
    ['streaming', 'localhost:1'],
    ['streaming', '127.0.0.1:70000'],
    ['streamingIdleMinutes', '0'],
    ['log', 'loud'],
    ['accelerator', 'xen'],
    ['pool', '65'],
    ['cniConfig', 'net.d'],
    ['cniConfig', ''],
    ['cniPlugins', '/opt/cni/bin:bin'],
    ['pool', '-1'],
    ['machineMemoryMiB', '1'],
    ['template', 'shared'],
    ['traces', 'collector:4318'],
    ['traces', 'http://me:secret@collector:4318'],
    ['traces', 'http://:secret@collector:4318'],
    ['memoryReserveMiB', '-1'],
    ['delegate', '/run/containerd/containerd.sock'],
    ['delegate', 'unix://containerd.sock'],
    ['delegate', 'unix:///run/podvm/cri.sock'],
    ['delegateNamespaces', 'kube-system monitoring'],
    ['delegateNamespaces', ''],
  ] as const;
  for (const [key, value] of wrong) {
    assert.throws(() => readConfiguration({}, {}, '/', { [key]: value }), {
      kind: 'invalid',
      message: new RegExp(key),
    });
    const { env } = settings[key];
    assert.throws(() => readConfiguration({}, { [env]: value }, '/'), { kind: 'invalid', message: new RegExp(env) });
  }
  const long = `/${'x'.repeat(120)}`;
  assert.throws(() => readConfiguration({ root: long }, {}, '/'), { kind: 'invalid', message: /at most 107 bytes/ });
});

test('options override the environment, which overrides the file', async () => {
  const file = await inFile('root: /in-file\nlog: error\npool: 3\nstreaming: "[::1]:10010"\n');
  const all = readConfiguration({ root: '/option' }, { PODVM_ROOT: '/env', PODVM_LOG: 'debug' }, '/', file);
  assert.deepEqual([all.root, all.logLevel, all.poolSize], ['/option', 'debug', 3]);
  assert.deepEqual(all.streaming, { address: '::1', port: 10_010, idleMs: 4 * 60 * 60_000 });
  assert.equal(all.criSocketPath, '/option/cri.sock');
  assert.equal(readConfiguration({}, { PODVM_ROOT: '/env' }, '/', file).root, '/env');
  assert.equal(readConfiguration({}, {}, '/', file).root, '/in-file');
});

test('defaults apply without settings, and with an empty file', async (t) => {
  actAs(0, t);
  const config = readConfiguration({}, {}, '/', await inFile(''));
  assert.deepEqual(
    [config.root, config.socketPath, config.criSocketPath],
    ['/var/lib/podvm', '/run/podvm/podvm.sock', '/run/podvm/cri.sock'],
  );
  assert.deepEqual(config.streaming, { address: '127.0.0.1', port: 0, idleMs: 4 * 60 * 60_000 });
  assert.deepEqual([config.logLevel, config.poolSize, config.accelerator], ['warn', 0, undefined]);
  assert.equal(config.template, 'on');
});

test('a node whose pods do not share its template refuses a pool, naming both settings', async () => {
  const file = await inFile('template: namespace\n');
  assert.equal(readConfiguration({}, {}, '/', file).template, 'namespace');
  assert.equal(readConfiguration({}, { PODVM_TEMPLATE: 'off' }, '/', file).template, 'off');
  assert.throws(() => readConfiguration({}, { PODVM_POOL: '1' }, '/', file), {
    kind: 'invalid',
    message: /PODVM_POOL.*template disables/,
    fix: /template to on/,
  });
  assert.equal(readConfiguration({}, { PODVM_POOL: '1', PODVM_TEMPLATE: 'on' }, '/', file).poolSize, 1);
});

test('a CNI directory, the built-in network, and no setting are distinguished', () => {
  const of = (env: NodeJS.ProcessEnv) => readConfiguration({}, env, '/');
  assert.deepEqual([of({}).cniConfig, of({}).cniPluginDirectories], [undefined, undefined]);
  assert.deepEqual(of({ PODVM_CNI_CONFIG: '/srv/net.d/' }).cniConfig, { kind: 'directory', path: '/srv/net.d' });
  assert.deepEqual(of({ PODVM_CNI_CONFIG: 'built-in' }).cniConfig, { kind: 'builtIn' });
  assert.deepEqual(of({ PODVM_CNI_PLUGINS: '/a:/b' }).cniPluginDirectories, ['/a', '/b']);
});

test('a daemon requires cgroups for its machines unless configured otherwise; other commands do not', () => {
  assert.equal(readConfiguration({}, {}, '/', daemonDefaults).requiresCgroup, true);
  assert.equal(readConfiguration({}, {}, '/', { ...daemonDefaults, hostLimits: 'preferred' }).requiresCgroup, false);
  assert.equal(readConfiguration({}, { PODVM_HOST_LIMITS: 'preferred' }, '/', daemonDefaults).requiresCgroup, false);
  assert.equal(readConfiguration({}, {}, '/').requiresCgroup, false);
});

test('a rate of disks is a quantity, and one that would stop a pod is refused', () => {
  const rateOf = (diskRate?: string) =>
    readConfiguration({}, {}, '/', diskRate === undefined ? {} : { diskRate }).diskBytesPerSecond;
  assert.deepEqual([rateOf(), rateOf('50M'), rateOf('1Mi')], [undefined, 50e6, 1024 ** 2]);
  for (const wrong of ['fast', '0', '-5M', '999k']) assert.throws(() => rateOf(wrong), { kind: 'invalid' }, wrong);
});

test('the state directory of an ordinary user is never one of the working directory', (t) => {
  actAs(1000, t);
  // A node of root on the host that runs the tests does not count.
  const of = (env: NodeJS.ProcessEnv) => usualRoot(env, '/absent/podvm.sock');
  assert.equal(of({ XDG_DATA_HOME: '/data/of/anna' }), '/data/of/anna/podvm');
  for (const env of [{}, { XDG_DATA_HOME: '' }, { XDG_DATA_HOME: 'data' }])
    assert.equal(of(env), join(homedir(), '.local/share/podvm'));
});

test('the dashboard is served on 127.0.0.1 only, and on no address by default', () => {
  const read = (file: Record<string, string>) => readConfiguration({}, {}, '/repo', file).dashboardPort;
  assert.equal(read({}), undefined);
  assert.equal(read({ dashboardAddress: '127.0.0.1:8420' }), 8420);
  for (const given of ['0.0.0.0:8420', '10.0.0.1:8420', '[::1]:8420', '127.0.0.2:8420', 'localhost:8420', '8420'])
    assert.throws(() => read({ dashboardAddress: given }), { kind: 'invalid' }, given);
});

test('metrics are served to the node alone, unless other hosts are allowed by a setting of its own', () => {
  const read = (file: Record<string, string>) => readConfiguration({}, {}, '/repo', file).metrics;
  assert.equal(read({}), undefined);
  for (const [given, address] of [
    ['127.0.0.1:10011', '127.0.0.1'],
    ['127.8.8.8:10011', '127.8.8.8'],
    ['[::1]:10011', '::1'],
  ] as const)
    assert.deepEqual(read({ metricsAddress: given }), { address, port: 10_011, clients: 'local' });
  for (const given of ['0.0.0.0:10011', '10.0.0.1:10011', '[::]:10011', '[::ffff:10.0.0.1]:10011']) {
    const refusal = { kind: 'invalid', message: /without credentials/, fix: /metricsClients/ };
    assert.throws(() => read({ metricsAddress: given }), refusal, given);
    assert.equal(read({ metricsAddress: given, metricsClients: 'any' })?.clients, 'any');
  }
  assert.throws(() => read({ metricsAddress: 'localhost:1' }), { kind: 'invalid' });
});

test('an ordinary user without a state directory uses the node of root if its socket may be used', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-root-'));
  t.after(async () => await rm(directory, { recursive: true }));
  const socket = join(directory, 'podvm.sock');
  actAs(1000, t);
  const rootFor = (data: string) => usualRoot({ XDG_DATA_HOME: data }, socket);
  assert.equal(rootFor(directory), join(directory, 'podvm'), 'there is no socket');
  await writeFile(socket, '');
  assert.equal(rootFor(directory), '/var/lib/podvm');
  await mkdir(join(directory, 'podvm'));
  assert.equal(rootFor(directory), join(directory, 'podvm'), 'the user has a state directory');
});

test('a socket group must be a name', () => {
  assert.equal(readConfiguration({}, { PODVM_SOCKET_GROUP: 'podvm' }, '/').socketGroup, 'podvm');
  assert.equal(readConfiguration({}, {}, '/').socketGroup, undefined);
  for (const value of ['', '-x', 'a b', 'a:b', 'x'.repeat(40)])
    assert.throws(() => readConfiguration({}, { PODVM_SOCKET_GROUP: value }, '/'), { kind: 'invalid' }, value);
});
