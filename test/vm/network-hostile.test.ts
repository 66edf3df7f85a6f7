import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { globSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { silentLog } from '#host/log/log.ts';
import { run } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';
import { bridgeOf, removeDefaultNetwork } from '#network/default-network.ts';
import { createHostNetwork, type HostNetworkOptions } from '#network/host-network.ts';
import { containerSpec, sandboxSpec } from '#sandbox/testing/examples.ts';
import type { Container, Sandbox, SandboxSpec } from '#sandbox/sandbox.ts';
import { runInBuildRoot } from '#setup/parts/build-root.ts';
import { assetsRoot, openNode, whyNoVm, type Node } from './node.ts';

/**
 * A pod that sends forged frames to another pod and to the node: `test/attacks/hostile-frames.c`, in a container
 * without special requests. Its frames end at its own port, and are counted there.
 */
const skip = await whyNoVm();
const soon = () => AbortSignal.timeout(60_000);
const image = 'localhost/podvm/base:latest';
/** A link-local address, as of a cloud's metadata, that no cloud uses. */
const metadataHost = '169.254.86.77';

interface Pod {
  readonly sandbox: Sandbox;
  readonly main: Container;
  readonly mac: string;
  readonly address: string;
  readonly address6: string | undefined;
}

describe('a pod that lies on the network', { skip, timeout: 240_000 }, () => {
  let node: Node;
  let attacker: Pod;
  let victim: Pod;
  let bridge: string;
  let gateway: string;
  let gatewayMac: string;

  before(async () => {
    node = await openNode();
    const program = await buildAttacks();
    const open = (name: string, more: Partial<SandboxSpec> = {}) => openPod(node, name, program, more);
    [attacker, victim] = [await open('attacker'), await open('victim')];
    bridge = (await bridgeOf(join(node.directory, 'network'))) ?? assert.fail('no bridge');
    gateway = /default via (\S+)/.exec(await says(victim, 'ip route'))?.[1] ?? assert.fail('no gateway');
    gatewayMac = (await readFile(`/sys/class/net/${bridge}/address`, 'utf8')).trim();
    await run('ip', ['address', 'replace', `${metadataHost}/32`, 'dev', 'lo']);
  });
  after(async () => {
    await run('ip', ['address', 'del', `${metadataHost}/32`, 'dev', 'lo'], { okCodes: [0, 2] });
    await node[Symbol.asyncDispose]();
    assert.deepEqual(await node.leftovers(), []);
    assert.doesNotMatch((await run('nft', ['list', 'tables'])).stdout, new RegExp(`\\b${bridge}_`));
  });

  const attack = async (words: string) => {
    const said = await says(attacker, `/attacks/hostile-frames eth0 ${words}`);
    return { said, sent: Number(/^sent (\d+)$/m.exec(said)?.[1]) };
  };
  const fetches = async (from: Pod, url: string) => await says(from, `wget -q -T 3 -O - ${url} 2>&1 || echo failed`);
  /** ARP entry of the gateway in the victim. */
  const wayOut = async () => await says(victim, `grep '^${gateway} ' /proc/net/arp`);
  /** ARP entry, routes and addresses of the victim, and the bridge's MAC table without the groups that interfaces join. */
  const beliefs = async () => ({
    arp: await wayOut(),
    routes: await says(victim, 'ip route; ip -6 route | grep -v ^ff'),
    addresses: await says(victim, 'ip address show dev eth0'),
    bridge: (await run('bridge', ['fdb', 'show', 'br', bridge])).stdout
      .split('\n')
      .filter((line) => !/^(?:33:33|01:00:5e):/.test(line))
      .sort(),
  });

  test('does not affect its victim, the bridge or the node: its forged frames are dropped at its port, and no others', async () => {
    for (const { address } of [attacker, victim])
      for (const from of [attacker, victim]) assert.equal(await fetches(from, `http://${address}:8080/`), 'page\n');
    await says(victim, `ping -c 1 -W 5 ${gateway}`);
    const honest = await Promise.all([attacker, victim].map(({ sandbox }) => sandbox.dropped(soon())));
    for (const dropped of honest)
      assert.deepEqual(Object.fromEntries(dropped ?? []), { forged: 0, loopback: 0, connections: 0, services: 0 });
    // The kernel checks an IPv6 address for a second before it is no longer tentative.
    const settled = async () => ((await beliefs()).addresses.includes('tentative') ? undefined : true);
    assert.ok(await poll(settled, { everyMs: 100, signal: soon() }));
    const believed = await beliefs();
    assert.match(believed.arp, new RegExp(gatewayMac));

    const { mac, address, address6 = 'fd00::5' } = victim;
    const own6 = attacker.address6 ?? linkLocalOf(attacker.mac);
    const lies = [
      `arp ${mac} ${address} ${gateway}`,
      `arp ${gatewayMac} ${gateway} ${address}`,
      `ra ${linkLocalOf(attacker.mac)}`,
      `ra ${linkLocalOf(gatewayMac)}`,
      `na ${own6} ${address6}`,
      `na ${linkLocalOf(attacker.mac)} ${linkLocalOf(gatewayMac)}`,
      `udp ${mac} ${gatewayMac} ${attacker.address} ${gateway} 1 2`,
      `udp own ${gatewayMac} ${address} ${gateway} 1 2`,
      `udp own ${gatewayMac} 127.0.0.1 ${gateway} 1 2`,
      `udp own ${mac} ${attacker.address} ${address} 1 2 100`,
      `udp own ff:ff:ff:ff:ff:ff ${attacker.address} 255.255.255.255 67 68`,
      `udp own ${gatewayMac} ${attacker.address} ${address} 1 2`,
      'flood 4000',
    ];
    let total = 0;
    const forged = async () => (await attacker.sandbox.dropped(soon()))?.get('forged');
    for (const lie of lies) {
      const { said, sent } = await attack(lie);
      assert.ok(sent > 0, `${lie}: ${said}`);
      assert.equal(await wayOut(), believed.arp, lie);
      total += sent;
      for (const deadline = soon(); (await forged()) !== total;) {
        const counted = await forged();
        assert.ok(!deadline.aborted && (counted ?? 0) <= total, `${lie}: ${counted} dropped of ${total}`);
      }
    }
    assert.deepEqual(await beliefs(), believed);
    assert.equal(await fetches(attacker, `http://${address}:8080/`), 'page\n');
  });

  test("does not reach the node's 127.0.0.1, though the node routes to it", async () => {
    await using inner = await serve('127.0.0.1');
    // Other programs set it for all interfaces of a node.
    await writeFile(`/proc/sys/net/ipv4/conf/${bridge}/route_localnet`, '1');
    const to = `own ${gatewayMac} ${attacker.address} 127.0.0.1 ${40_000 + (process.pid % 20_000)} ${inner.port}`;
    assert.match((await attack(`knock ${to}`)).said, /^sent 5\nanswer none$/m);
    assert.equal(inner.connections, 0);
  });

  test("reaches services at the node's address, and metadata services only if it asks for them", async () => {
    await using open = await serve('0.0.0.0');
    await using metadata = await serve(metadataHost);
    const [service, secret] = [`http://${gateway}:${open.port}/`, `http://${metadataHost}:${metadata.port}/`];
    assert.equal(await fetches(victim, service), 'node\n');
    assert.match(await fetches(victim, secret), /failed\n$/);
    assert.equal(metadata.connections, 0);
    const annotations = { 'podvm.dev/network-policy': 'metadata' };
    const asking = await openPod(node, 'asking', undefined, { annotations });
    assert.equal(await fetches(asking, service), 'node\n');
    assert.equal(await fetches(asking, secret), 'node\n');
    await asking.sandbox.remove();
  });
});

describe('what the node refuses of pods', { skip, timeout: 120_000 }, () => {
  test('is loopback, more connections than one pod may have, and its own services where it is closed', async () => {
    await using way = await openWay({});
    // Acts like a pod that gets past its own port.
    await way.inPod('echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet; ip address del 127.0.0.1/8 dev lo');
    await way.inPod(`ip route add 127.0.0.1/32 via ${way.gateway} dev eth0`);
    await writeFile(`/proc/sys/net/ipv4/conf/${way.bridge}/route_localnet`, '1');
    await using inner = await listen();
    await way.say('127.0.0.1', inner.port);
    await way.say(way.gateway, inner.port);
    await inner.heard;
    assert.deepEqual(inner.hosts, [way.address], 'heard by the address of the node alone');
    assert.equal((await way.dropped()).get('loopback'), 1);
    assert.deepEqual(await way.droppedOf(1), { forged: 0, loopback: 1, connections: 0, services: 0 });

    const before = await tracked();
    const script = `const s = require('node:dgram').createSocket('udp4'); let n = 0;
      const next = () => n++ < 24000 ? s.send('x', 1 + n, '${way.gateway}', next) : s.close(); next()`;
    await way.inPod(`exec ${process.execPath} -e "${script}"`);
    const dropped = (await way.dropped()).get('connections') ?? 0;
    // 16,384 are let pass, counted by a sample.
    assert.ok(dropped > 5000, `${dropped} refused`);
    await using neighbour = await way.attach({});
    await neighbour.connect(soon());
    assert.deepEqual(await way.droppedOf(1), { forged: 0, loopback: 1, connections: dropped, services: 0 });
    assert.deepEqual(await way.droppedOf(2), { forged: 0, loopback: 0, connections: 0, services: 0 });
    assert.ok((await tracked()) - before < 19_000);
  });

  test('depends on the annotation of a pod, also of one whose network was connected ahead', async () => {
    await using way = await openWay({});
    const knowsMetadata = async (netns: string) => {
      const show = ['tc', '-d', 'filter', 'show', 'dev', 'tap0', 'parent', 'ffff:'];
      const { stdout } = await run('nsenter', [`--net=${netns}`, ...show]);
      assert.equal([...stdout.matchAll(/direct-action/g)].length, 1, stdout);
      return stdout.includes(String(0xa9fe_0000));
    };
    const owner = { podName: 'late', podNamespace: 'default', podUid: 'uid', hostPorts: [] };
    for (const annotations of [{}, { 'podvm.dev/network-policy': 'metadata' }]) {
      await using attachment = await way.attach({});
      await attachment.connectAhead(soon());
      assert.ok(await knowsMetadata(attachment.netns));
      attachment.assign({ ...owner, annotations });
      await attachment.connect(soon());
      assert.equal(await knowsMetadata(attachment.netns), Object.keys(annotations).length === 0);
    }
  });

  test('includes all services of its own with networkPolicy outside, and metadata services for every pod', async () => {
    await using way = await openWay({ policy: 'outside' });
    await using inner = await listen();
    await way.say(way.gateway, inner.port);
    assert.equal((await way.dropped()).get('services'), 1);
    assert.deepEqual(await way.droppedOf(1), { forged: 0, loopback: 0, connections: 0, services: 1 });
    assert.deepEqual(inner.hosts, []);
    await assert.rejects(
      way.attach({ 'podvm.dev/network-policy': 'metadata' }),
      /asks for metadata, and this node's networkPolicy is outside/,
    );
    await assert.rejects(way.attach({ 'podvm.dev/network-policy': 'all' }), /must be default or metadata, got all/);
  });
});

describe('a pod of a configured network', { skip, timeout: 120_000 }, () => {
  test("does not reach the node's 127.0.0.1 either, though the node routes to it, and what it sent there is counted", async () => {
    await using undo = new AsyncDisposableStack();
    const directory = await mkdtemp('/var/tmp/podvm-hostile-cni-');
    undo.defer(() => rm(directory, { recursive: true }));
    const [bridge, gateway] = ['pvmtest7', '10.219.77.1'];
    const ipam = {
      type: 'host-local',
      dataDir: join(directory, 'ipam'),
      ranges: [[{ subnet: '10.219.77.0/24', gateway }]],
      routes: [{ dst: '0.0.0.0/0' }],
    };
    const plugins = [{ type: 'bridge', bridge, isGateway: true, ipam }];
    await mkdir(join(directory, 'net.d'));
    const conflist = { cniVersion: '1.0.0', name: 'podvm', plugins };
    await writeFile(join(directory, 'net.d/10.conflist'), JSON.stringify(conflist));
    undo.defer(async () => void (await run('ip', ['link', 'delete', bridge], { okCodes: 'any' })));
    const node = undo.use(await openNode({ cniConfigDirectory: join(directory, 'net.d') }));
    const pod = await openPod(node, 'configured', await buildAttacks(), {});
    const dropped = async () => Object.fromEntries((await pod.sandbox.dropped(soon())) ?? []);

    await using inner = await serve('127.0.0.1');
    await using open = await serve('0.0.0.0');
    await writeFile(`/proc/sys/net/ipv4/conf/${bridge}/route_localnet`, '1'); // as portmap does
    assert.equal(await says(pod, `wget -q -T 3 -O - http://${gateway}:${open.port}/`), 'node\n');
    assert.deepEqual(await dropped(), { loopback: 0 });
    const mac = (await readFile(`/sys/class/net/${bridge}/address`, 'utf8')).trim();
    const to = `own ${mac} ${pod.address} 127.0.0.1 ${40_000 + (process.pid % 20_000)} ${inner.port}`;
    assert.match(await says(pod, `/attacks/hostile-frames eth0 knock ${to}`), /^sent 5\nanswer none$/m);
    assert.deepEqual(await dropped(), { loopback: 5 });
    assert.equal(inner.connections, 0);
    await undo.disposeAsync();
    assert.deepEqual(await node.leftovers(), []);
  });
});

async function openPod(
  { sandboxes }: Node,
  name: string,
  program: Buffer | undefined,
  more: Partial<SandboxSpec>,
): Promise<Pod> {
  const files = program === undefined ? [] : [{ path: 'hostile-frames', bytes: program, mode: 0o755 }];
  const volumes = [{ name: 'attacks', kind: 'push', files }] as const;
  const sandbox = await sandboxes.run({ ...sandboxSpec, name, hostname: name, volumes, ...more }, soon());
  const mounts = [{ source: { kind: 'volume', name: 'attacks' }, mountPath: '/attacks', readOnly: true }] as const;
  const page =
    'mkdir /tmp/www; echo page > /tmp/www/index.html; httpd -p 8080 -h /tmp/www; echo there; exec sleep 1000';
  const main = await sandbox.createContainer({ ...containerSpec, image, mounts, command: ['sh', '-c', page] }, soon());
  const there = Promise.withResolvers<void>();
  main.follow(async () => there.resolve());
  await main.start(soon());
  await there.promise;
  const [address = '', address6] = sandbox.status.addresses;
  const pod = { sandbox, main, mac: '', address, address6 };
  return { ...pod, mac: (await says(pod, 'cat /sys/class/net/eth0/address')).trim() };
}

async function says({ main }: Pod, script: string): Promise<string> {
  const exec = await main.exec({ command: ['sh', '-c', `{ ${script}; } 2>&1`], tty: false, stdin: false }, soon());
  return Buffer.concat(await Array.fromAsync(exec.stdout as AsyncIterable<Buffer>)).toString(); // SAFE: no encoding is set
}

/** Compiles a program for a guest without libraries, with set-up's own compiler. */
async function buildAttacks(): Promise<Buffer> {
  const [buildRoot = assert.fail('no build root')] = globSync(join(assetsRoot, 'parts/build-root-*/root'));
  const workDir = await mkdtemp('/var/tmp/podvm-attacks-');
  const flags = ['-std=gnu17', '-Wall', '-Wextra', '-Werror', '-O1', '-static', '-s'];
  try {
    await runInBuildRoot({
      buildRoot,
      workDir,
      program: 'gcc',
      args: [...flags, '-o', 'hostile-frames', '/attacks/hostile-frames.c'],
      readOnly: { '/attacks': join(import.meta.dirname, '../attacks') },
      signal: soon(),
    });
    return await readFile(join(workDir, 'hostile-frames'));
  } finally {
    await rm(workDir, { recursive: true });
  }
}

/** Serves a page on an address of the node. */
async function serve(host: string) {
  const counts = { connections: 0 };
  const server = createServer((_request, response) => response.end('node\n'));
  server.on('connection', () => (counts.connections += 1));
  await once(server.listen(0, host), 'listening');
  const { port } = server.address() as AddressInfo; // SAFE: it listens on TCP
  return {
    port,
    get connections() {
      return counts.connections;
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Opens a UDP port on all addresses of the node. */
async function listen() {
  const socket = createSocket('udp4');
  const hosts: string[] = [];
  const heard = Promise.withResolvers<void>();
  socket.on('message', (_bytes, { address }) => {
    hosts.push(address);
    heard.resolve();
  });
  socket.bind(0);
  await once(socket, 'listening');
  return {
    port: socket.address().port,
    hosts,
    heard: heard.promise,
    async [Symbol.asyncDispose]() {
      await new Promise<void>((resolve) => socket.close(resolve));
    },
  };
}

/** An attachment to a built-in network without a machine: frames that are sent there have passed its port. */
async function openWay(options: Pick<HostNetworkOptions, 'policy'>) {
  const stateDir = await mkdtemp('/var/tmp/podvm-way-');
  const network = createHostNetwork({ stateDir, log: silentLog, ...options });
  const pod = { podName: 'pod', podNamespace: 'default', podUid: 'uid' };
  let made = 0;
  const idOf = (number: number) => `way-${stateDir.slice(-6).toLowerCase()}-${number}`;
  const attach = async (annotations: Readonly<Record<string, string>>) => {
    const sandboxId = idOf((made += 1));
    const request = { ...pod, sandboxId, mode: 'cni', hostPorts: [], tapOwnerUid: 64_999, annotations } as const;
    return await network.prepare(request, soon());
  };
  const attachment = await attach({});
  const { interfaces, routes } = await attachment.connect(soon());
  const address = interfaces[0]?.addresses[0]?.replace(/\/.*/, '') ?? assert.fail('no address');
  const gateway = routes.find(({ destination }) => destination === '0.0.0.0/0')?.gateway ?? assert.fail('no gateway');
  const bridge = (await bridgeOf(stateDir)) ?? assert.fail('no bridge');
  const mac = (await readFile(`/sys/class/net/${bridge}/address`, 'utf8')).trim();
  const inPod = async (script: string) => await run('nsenter', [`--net=${attachment.netns}`, 'bash', '-c', script]);
  // Answers go to the machine that is not there.
  await inPod(`ip neighbour replace ${gateway} lladdr ${mac} dev eth0 nud permanent`);
  return {
    ...{ bridge, gateway, address, attach, inPod },
    say: async (host: string, port: number) => await inPod(`echo hello > /dev/udp/${host}/${port}`),
    /** Counts of dropped packets of the pod with this number. */
    droppedOf: async (number: number) => Object.fromEntries((await network.dropped(idOf(number), soon())) ?? []),
    dropped: async () => (await network.droppedPackets(soon())) ?? assert.fail('no network'),
    async [Symbol.asyncDispose]() {
      await attachment[Symbol.asyncDispose]();
      await removeDefaultNetwork(stateDir, soon());
      await rm(stateDir, { recursive: true });
    },
  };
}

const tracked = async () => Number(await readFile('/proc/sys/net/netfilter/nf_conntrack_count', 'utf8'));

/** RFC 4291, appendix A. */
function linkLocalOf(mac: string): string {
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = mac.split(':').map((octet) => Number.parseInt(octet, 16));
  const group = (high: number, low: number) => (high * 256 + low).toString(16);
  return `fe80::${group(a ^ 2, b)}:${group(c, 0xff)}:${group(0xfe, d)}:${group(e, f)}`;
}
