import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { readConfigFile } from './config-file.ts';
import { daemonDefaults, readConfiguration } from './configuration.ts';
import { settings } from './settings.ts';

/** Settings of a file with this text. */
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

test('a file with a key that is not there, a list, or no YAML is refused, with the keys there are', async () => {
  await assert.rejects(readConfigFile('/nowhere/podvm.yaml'), { kind: 'notFound' });
  await assert.rejects(inFile('sokcet: /x\n'), { kind: 'invalid', message: /sokcet/, fix: /criSocket/ });
  await assert.rejects(inFile('pool: [1]\n'), { kind: 'invalid', message: /pool/ });
  await assert.rejects(inFile('- pool\n'), { kind: 'invalid' });
  await assert.rejects(inFile('pool: {'), { kind: 'invalid', message: /no YAML/ });
});

test('what is wrong with a file is said in a sentence, with the setting that was meant', async () => {
  const says = (text: string, sentence: string) =>
    assert.rejects(inFile(text), ({ message }: Error) => {
      assert.equal(message.replace(/^Cannot use the configuration \S+: /, ''), sentence);
      return true;
    });
  await says('rot: /x\n', '`rot` is not a setting; did you mean root?');
  await says('machinememorymib: 300\n', '`machinememorymib` is not a setting; did you mean machineMemoryMiB?');
  await says('colour: red\n', '`colour` is not a setting');
  await says('"a\\e[2J": 1\n', '`a\\u001b[2J` is not a setting');
  await says('pool: [1]\n', '`pool` must be a text or a number, got a list');
  await says('pool: {a: 1}\n', '`pool` must be a text or a number, got a mapping');
  await says('pool:\n', '`pool` must be a text or a number, got nothing');
  await says('console: true\n', '`console` must be a text or a number, got true');
  await says('- pool\n', 'it is not a mapping of settings, one `key: value` a line');
  await says('pool\n', 'it is not a mapping of settings, one `key: value` a line');
  const absent = {
    message: 'Cannot read the configuration /nowhere/podvm.yaml: there is no such file',
    fix: /--config/,
  };
  await assert.rejects(readConfigFile('/nowhere/podvm.yaml'), absent);
});

test('a value that cannot be is refused by the name under which it was given', () => {
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
  assert.throws(() => readConfiguration({ root: long }, {}, '/'), { kind: 'invalid', message: /too long/ });
});

test('an option goes before the environment, and that before the file', async () => {
  const file = await inFile('root: /in-file\nlog: error\npool: 3\nstreaming: "[::1]:10010"\n');
  const all = readConfiguration({ root: '/option' }, { PODVM_ROOT: '/env', PODVM_LOG: 'debug' }, '/', file);
  assert.deepEqual([all.root, all.logLevel, all.poolSize], ['/option', 'debug', 3]);
  assert.deepEqual(all.streaming, { address: '::1', port: 10_010, idleMs: 4 * 60 * 60_000 });
  assert.equal(all.criSocketPath, '/option/cri.sock');
  assert.equal(readConfiguration({}, { PODVM_ROOT: '/env' }, '/', file).root, '/env');
  assert.equal(readConfiguration({}, {}, '/', file).root, '/in-file');
});

test('without anything said, the defaults hold, and an empty file says nothing', async () => {
  const config = readConfiguration({}, {}, '/', await inFile(''));
  assert.deepEqual(
    [config.root, config.socketPath, config.criSocketPath],
    ['/var/lib/podvm', '/run/podvm/podvm.sock', '/run/podvm/cri.sock'],
  );
  assert.deepEqual(config.streaming, { address: '127.0.0.1', port: 0, idleMs: 4 * 60 * 60_000 });
  assert.deepEqual([config.logLevel, config.poolSize, config.accelerator], ['warn', 0, undefined]);
  assert.equal(config.template, 'on');
});

test('a node whose pods do not share its template has no pool, and says which of the two settings to change', async () => {
  const file = await inFile('template: namespace\n');
  assert.equal(readConfiguration({}, {}, '/', file).template, 'namespace');
  assert.equal(readConfiguration({}, { PODVM_TEMPLATE: 'off' }, '/', file).template, 'off');
  assert.throws(() => readConfiguration({}, { PODVM_POOL: '1' }, '/', file), {
    kind: 'invalid',
    message: /PODVM_POOL.*template forbids/,
    fix: /template to on/,
  });
  assert.equal(readConfiguration({}, { PODVM_POOL: '1', PODVM_TEMPLATE: 'on' }, '/', file).poolSize, 1);
});

test('a CNI directory, the built-in network, and nothing said are told apart', () => {
  const of = (env: NodeJS.ProcessEnv) => readConfiguration({}, env, '/');
  assert.deepEqual([of({}).cniConfig, of({}).cniPluginDirectories], [undefined, undefined]);
  assert.deepEqual(of({ PODVM_CNI_CONFIG: '/srv/net.d/' }).cniConfig, { kind: 'directory', path: '/srv/net.d' });
  assert.deepEqual(of({ PODVM_CNI_CONFIG: 'built-in' }).cniConfig, { kind: 'builtIn' });
  assert.deepEqual(of({ PODVM_CNI_PLUGINS: '/a:/b' }).cniPluginDirectories, ['/a', '/b']);
});

test('a daemon requires cgroups for its machines, and says how pods run without; other commands do not', () => {
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
