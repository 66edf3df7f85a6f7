import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { readProcessFile } from '#host/process/process-identity.ts';
import { run } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';
import { openServiceNetwork } from '../service-network.ts';
import { ServiceDns, servicesDirectory } from './service-dns.ts';
import { dnsAddress, hasRules, removeRules, rulesOf, setRules } from './service-rules.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
/** Others that run these tests on this host have other addresses. */
const place = randomInt(1, 250);
const soon = (ms = 60_000) => AbortSignal.timeout(ms);

/** A program of a pod that asks for ever more names (`flood`), holds connections, or asks for one name (`ask`). */
const program = `
const [how, address, name] = process.argv.slice(1);
const question = (id, name) => Buffer.concat([
  Buffer.from([id >> 8, id & 255, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]),
  ...name.split('.').flatMap((part) => [Buffer.from([part.length]), Buffer.from(part)]), Buffer.from([0, 0, 1, 0, 1])]);
if (how === 'connect') {
  for (let at = 0; at < 30; at += 1)
    for (const localAddress of address.split(','))
      require('node:net').connect({ host: '${dnsAddress}', port: 53, localAddress })
        .on('connect', () => console.log('connected')).on('error', () => {});
  setInterval(() => {}, 1e6);
} else {
  const socket = require('node:dgram').createSocket('udp4');
  let asked = 0;
  socket.on('error', () => {}); // a full queue of its own
  const ask = () => {
    for (let at = 0; at < (how === 'flood' ? 300 : 1); at += 1)
      socket.send(question((asked += 1) & 65535, how === 'flood' ? asked + '.' + name : name), 53, '${dnsAddress}');
  };
  socket.bind({ address }, () => {
    setInterval(ask, how === 'flood' ? 100 : 500);
    console.log('asks');
  });
}
`;

/** Last numbers of the addresses of pods. */
const hosts = [2, 3, 4, 5, 6, 7, 8, 9, 10];

/** A bridge with a name server whose own server never answers, and a namespace with the addresses of pods. */
async function openBridge() {
  await using undo = new AsyncDisposableStack();
  const directory = await mkdtemp('/var/tmp/podvm-asking-');
  undo.defer(() => rm(directory, { recursive: true }));
  const mark = directory.slice(-6).toLowerCase();
  const [bridge, namespace, gateway] = [`pvask${mark}`, `pvask-${mark}`, `10.99.${place}.1`];
  const ip = async (...words: readonly string[]) => void (await run('ip', words));
  await ip('netns', 'add', namespace);
  undo.defer(() => ip('netns', 'delete', namespace));
  await ip('link', 'add', bridge, 'type', 'bridge');
  undo.defer(() => ip('link', 'delete', bridge));
  await ip('address', 'add', `${gateway}/24`, 'dev', bridge);
  await ip('link', 'add', `v${mark}`, 'master', bridge, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', namespace);
  for (const link of [bridge, `v${mark}`]) await ip('link', 'set', link, 'up');
  for (const host of hosts) await ip('-n', namespace, 'address', 'add', `10.99.${place}.${host}/24`, 'dev', 'eth0');
  await ip('-n', namespace, 'link', 'set', 'eth0', 'up');
  await ip('-n', namespace, 'route', 'add', 'default', 'via', gateway);
  const asked = new Set<string>();
  const silent = createSocket('udp4', (question) => asked.add(question.toString('latin1')));
  undo.defer(() => void silent.close());
  silent.bind(53, `127.99.${place}.1`);
  await once(silent, 'listening');
  const resolvConf = join(directory, 'resolv.conf');
  await writeFile(resolvConf, `nameserver 127.99.${place}.1\n`);
  undo.defer(() => removeRules(bridge, soon()));
  await setRules({ bridge, directory: join(directory, 'services') }, rulesOf({ bridge, gateway }, []), soon());
  const dns = new ServiceDns(join(directory, 'services'), resolvConf);
  undo.defer(() => dns.stop());
  await dns.serve({ bridge, gateway }, []);
  const children: ChildProcess[] = [];
  undo.defer(async () => {
    for (const child of children) child.kill('SIGKILL');
    for (const child of children) if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  });
  const owned = undo.move();
  return {
    asked,
    start(...words: readonly string[]): ChildProcess {
      const child = spawn('ip', ['netns', 'exec', namespace, process.execPath, '-e', program, ...words]);
      children.push(child);
      return child;
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

test('a pod that asks without end leaves the name server to other pods', { skip, timeout: 180_000 }, async () => {
  await using it = await openBridge();
  it.start('flood', `10.99.${place}.2`, 'of-one.example');
  const isFlooded = await poll(async () => (it.asked.size > 300 ? true : undefined), { everyMs: 20, signal: soon() });
  assert.ok(isFlooded, 'questions of a flooding pod are passed on');
  const { stdout } = it.start('ask', `10.99.${place}.3`, 'other.example');
  assert.ok(stdout);
  await once(stdout, 'data', { signal: soon() }); // it asks from now on, which is what has little time
  const isAsked = () => [...it.asked].some((question) => question.includes('\x05other'));
  const isHeard = await poll(async () => (isAsked() ? true : undefined), { everyMs: 50, signal: soon(8000) });
  assert.ok(isHeard, 'the question of another pod is passed on');
});

test('pods that hold connections leave some of the name server to others', { skip, timeout: 180_000 }, async () => {
  await using it = await openBridge();
  const countOf = (child: ChildProcess) => {
    const said = { connected: 0 };
    child.stdout?.on('data', (text: Buffer) => (said.connected += String(text).split('connected').length - 1));
    return said;
  };
  const [first = 0, ...others] = hosts;
  const hold = others.map((host) => `10.99.${place}.${host}`).join(',');
  const many = countOf(it.start('connect', hold));
  const isHeld = async () => (many.connected >= 2 * others.length ? true : undefined);
  assert.ok(await poll(isHeld, { everyMs: 20, signal: soon() }), `${many.connected}`);
  const one = countOf(it.start('connect', `10.99.${place}.${first}`));
  assert.ok(await poll(async () => (one.connected >= 2 ? true : undefined), { everyMs: 20, signal: soon() }));
  assert.deepEqual([many.connected, one.connected], [2 * others.length, 2]);
});

test('a server that was started and not recorded is ended before the next one', { skip, timeout: 60_000 }, async () => {
  const directory = await mkdtemp('/var/tmp/podvm-dns-');
  const resolvConf = join(directory, 'resolv.conf');
  await writeFile(resolvConf, '');
  const own = join(directory, 'services');
  const pidOf = async () => Number(/"pid":(\d+)/.exec(await readFile(join(own, 'dns.json'), 'utf8'))?.[1]);
  const serve = () => new ServiceDns(own, resolvConf).serve({ bridge: 'lo', gateway: `127.99.${place}.2` }, []);
  try {
    await serve();
    const first = await pidOf();
    await rm(join(own, 'dns.json')); // as if its starter had been killed before
    await serve();
    assert.notEqual(await pidOf(), first);
    assert.equal(await readProcessFile(first, 'cmdline').then((words) => words || undefined), undefined);
    const second = await pidOf();
    await rm(join(own, 'dns.json'));
    await new ServiceDns(own, resolvConf).stop();
    assert.equal(await readProcessFile(second, 'cmdline').then((words) => words || undefined), undefined);
  } finally {
    await new ServiceDns(own, resolvConf).stop();
    await rm(directory, { recursive: true });
  }
});

test(
  'rules that an earlier process has set are removed, also without a name server',
  { skip, timeout: 60_000 },
  async () => {
    const stateDir = await mkdtemp('/var/tmp/podvm-rules-');
    const bridge = `podvm${900 + (process.pid % 100)}`;
    await writeFile(
      join(stateDir, 'default-network.json'),
      JSON.stringify({ version: 1, bridge, subnet: '10.99.64.0/20' }),
    );
    try {
      await setRules(
        { bridge, directory: servicesDirectory(stateDir) },
        rulesOf({ bridge, gateway: '10.99.64.1' }, []),
        soon(),
      );
      assert.equal(await hasRules(bridge, soon()), true);
      await openServiceNetwork(stateDir, { builtIn: async () => undefined }).stop(soon());
      assert.equal(await hasRules(bridge, soon()), false);
    } finally {
      await removeRules(bridge, soon());
      await rm(stateDir, { recursive: true });
    }
  },
);
