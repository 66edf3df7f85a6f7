import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { silentLog } from '#host/log/log.ts';
import { run } from '#host/process/run.ts';
import { openDefaultNetwork, removeDefaultNetwork } from '#network/default-network.ts';
import { createHostNetwork } from '#network/host-network.ts';
import { readIpv6 } from '#network/ip/ipv6.ts';
import { holderOf } from '#network/ports/port-holder.ts';
import { readNodeFacts } from '#network/ip/node-facts.ts';
import type { AttachmentRequest, HostPort } from '#network/network.ts';
import { poll } from '#host/wait.ts';
import { describeNetwork, type NetworkHarness } from '#network/testing/network.conformance.ts';
import { containerSpec, sandboxSpec } from '#sandbox/testing/examples.ts';
import type { Container, Sandbox } from '#sandbox/sandbox.ts';
import { tracesOf } from '../leaks.ts';
import { openNode, whyNoVm, type Node } from './node.ts';

const skip = await whyNoVm();
const soon = () => AbortSignal.timeout(60_000);

async function openHarness(): Promise<NetworkHarness> {
  const directory = await mkdtemp('/var/tmp/podvm-network-');
  const stateDir = join(directory, 'network');
  const mark = directory.slice(-6).toLowerCase();
  let made = 0;
  return {
    open: () => createHostNetwork({ stateDir, log: silentLog }),
    makeRequest: () => ({
      sandboxId: `n-${mark}-${(made += 1)}`,
      podName: 'pod',
      podNamespace: 'default',
      podUid: 'uid',
      mode: 'cni',
      hostPorts: [],
      tapOwnerUid: 64_999,
    }),
    leftovers: async (sandboxId) => [
      ...(await tracesOf({ ids: [sandboxId] })),
      ...(await filesNaming(sandboxId, stateDir)),
    ],
    forwards: async (sandboxId) =>
      (await tracesOf({ ids: [sandboxId] })).flatMap((trace) => {
        const port = /--dport (\d+) /.exec(trace)?.[1];
        return port === undefined ? [] : [Number(port)];
      }),
    holderOf,
    async [Symbol.asyncDispose]() {
      await createHostNetwork({ stateDir, log: silentLog }).collect(new Set(), soon());
      await removeDefaultNetwork(stateDir, soon());
      await rm(directory, { recursive: true });
    },
  };
}

/** Records, and addresses that host-local keeps. */
async function filesNaming(id: string, directory: string): Promise<readonly string[]> {
  const { stdout } = await run('grep', ['-rl', id, directory], { okCodes: [0, 1, 2] }); // 2: no directory yet
  return stdout.split('\n').filter((path) => path !== '');
}

describeNetwork('host', openHarness, { skip, abortsAtMs: [0, 10, 20, 30, 40, 60, 80, 100, 150, 220] });

describe('the default network', { skip, timeout: 60_000 }, () => {
  test('of several concurrently created state directories shares neither bridge nor subnet', async () => {
    const directory = await mkdtemp('/var/tmp/podvm-networks-');
    const stateDirs = Array.from({ length: 8 }, (_, at) => join(directory, String(at)));
    try {
      for (const stateDir of stateDirs) await mkdir(stateDir);
      const chains = await Promise.all(stateDirs.map((stateDir) => openDefaultNetwork(stateDir, soon())));
      const bridges = chains.map(({ plugins }) => plugins[0]?.['bridge']);
      const subnets = chains.map(({ plugins }) => JSON.stringify(plugins[0]?.['ipam']).match(/10\.[0-9.]+\/20/)?.[0]);
      assert.deepEqual([new Set(bridges).size, new Set(subnets).size], [8, 8], `${bridges.join()} ${subnets.join()}`);
      assert.ok(bridges.every((bridge) => typeof bridge === 'string') && subnets.every(Boolean));
    } finally {
      for (const stateDir of stateDirs) await removeDefaultNetwork(stateDir, soon());
      await rm(directory, { recursive: true });
    }
  });
});

describe('check() of the default network', { skip, timeout: 60_000 }, () => {
  test('finds no fault in new pods, also with a host port, and reports what was removed', async () => {
    await using harness = await openHarness();
    const network = harness.open();
    const attach = async (more: Partial<AttachmentRequest>) => {
      const attachment = await network.prepare({ ...harness.makeRequest(), ...more }, soon());
      await attachment.connect(soon());
      return attachment;
    };
    await using plain = await attach({});
    await using limited = await attach({ annotations: { 'kubernetes.io/egress-bandwidth': '8M' } });
    const hostPort = { hostPort: 19_884, containerPort: 80, protocol: 'TCP' } as const;
    // Connected ahead: what its pod asks for is run later.
    await using ported = await network.prepare(harness.makeRequest(), soon());
    await ported.connectAhead(soon());
    const unowned = (await harness.open().check(soon())).map(({ sandboxId }) => sandboxId);
    assert.deepEqual(unowned, [plain, limited].map(({ sandboxId }) => sandboxId).sort());
    ported.assign({ podName: 'late', podNamespace: 'default', podUid: 'uid', hostPorts: [hostPort] });
    await ported.connect(soon());

    const verdicts = async () =>
      new Map((await harness.open().check(soon())).map(({ sandboxId, ...check }) => [sandboxId, check]));
    const before = await verdicts();
    assert.deepEqual(
      [...before.values()].map(({ verdict }) => verdict),
      ['well', 'well', 'well'],
    );
    assert.match(before.get(plain.sandboxId)?.detail ?? '', /^found well by bridge(, firewall)?$/);
    assert.match(before.get(limited.sandboxId)?.detail ?? '', /, bandwidth$/);
    assert.match(
      before.get(ported.sandboxId)?.detail ?? '',
      /by bridge.*; portmap was not called: versions before 1\.3\.0/,
    );

    await run('nsenter', [`--net=${plain.netns}`, 'ip', 'route', 'delete', 'default']);
    const after = await verdicts();
    assert.equal(after.get(plain.sandboxId)?.verdict, 'wrong');
    assert.match(after.get(plain.sandboxId)?.detail ?? '', /CNI plugin bridge .*Expected Route/);
    assert.equal(after.get(ported.sandboxId)?.verdict, 'well');
  });
});

/** Opens the network twice, and prints its bridge after each. */
const inOtherNetns = `
  import { openDefaultNetwork } from '#network/default-network.ts';
  import { run } from '#host/process/run.ts';
  const signal = AbortSignal.timeout(30_000);
  for (const prepare of [[], ['link', 'set', 'dev', 'podvm0', 'down', 'type', 'bridge', 'mcast_snooping', '1']]) {
    if (prepare.length > 0) await run('ip', prepare);
    await openDefaultNetwork(process.argv[1], signal);
    process.stdout.write((await run('ip', ['-json', '-details', 'link', 'show', 'podvm0'])).stdout.trim() + '\\n');
  }
`;

describe('the default network of a netns with the /sys of another', { skip, timeout: 60_000 }, () => {
  test('is up, keeps its MAC and has no multicast table', async () => {
    const stateDir = await mkdtemp('/var/tmp/podvm-networks-');
    try {
      const args = ['--net', process.execPath, '--input-type=module-typescript', '-e', inOtherNetns, stateDir];
      const { stdout } = await run('unshare', args, { cwd: join(import.meta.dirname, '../..') });
      const { mac } = JSON.parse(await readFile(join(stateDir, 'default-network.json'), 'utf8')) as { mac: string }; // SAFE: podvm wrote it
      const bridges = stdout.trim().split('\n');
      assert.equal(bridges.length, 2);
      for (const bridge of bridges) {
        assert.match(bridge, /"flags":\[[^\]]*"UP"/);
        assert.match(bridge, /"mcast_snooping":0,/);
        assert.ok(bridge.includes(`"address":"${mac}"`), `${bridge} has not ${mac}`);
      }
    } finally {
      await rm(stateDir, { recursive: true });
    }
  });
});

describe('the gateway of the default network', { skip, timeout: 60_000 }, () => {
  for (const isOld of [false, true]) {
    test(`has a constant MAC${isOld ? ', also on a bridge made without one' : ''}`, async () => {
      const stateDir = await mkdtemp('/var/tmp/podvm-networks-');
      try {
        const bridge = String((await openDefaultNetwork(stateDir, soon())).plugins[0]?.['bridge']);
        const port = `${bridge}p`;
        if (isOld) {
          await run('ip', ['link', 'delete', bridge]);
          await run('ip', ['link', 'add', bridge, 'type', 'bridge']);
          await run('ip', ['link', 'set', 'dev', bridge, 'alias', `podvm:${stateDir}`]);
          await openDefaultNetwork(stateDir, soon());
        }
        const macNow = async () => (await readFile(`/sys/class/net/${bridge}/address`, 'utf8')).trim();
        const mac = await macNow();
        assert.notEqual(mac, '00:00:00:00:00:00');
        // As low as can be: the kernel would give it to a bridge that has none of its own.
        await run('ip', ['link', 'add', port, 'address', '00:00:00:00:00:01', 'type', 'veth']);
        try {
          await run('ip', ['link', 'set', port, 'master', bridge]);
          assert.equal(await macNow(), mac);
        } finally {
          await run('ip', ['link', 'delete', port]);
        }
        await openDefaultNetwork(stateDir, soon());
        assert.equal(await macNow(), mac);
      } finally {
        await removeDefaultNetwork(stateDir, soon());
        await rm(stateDir, { recursive: true });
      }
    });
  }
});

describe('the way out of the default network', { skip, timeout: 60_000 }, () => {
  const rulesFor = async (stateDir: string) => {
    const listed = ['iptables', 'ip6tables'].map((program) => run(program, ['-w', '10', '-t', 'nat', '-S']));
    return (await Promise.all(listed)).flatMap(({ stdout }) =>
      stdout.split('\n').filter((line) => line.includes(stateDir)),
    );
  };
  const flush = async (rules: readonly string[]) => {
    for (const rule of rules) {
      const program = rule.includes('::/64') ? 'ip6tables' : 'iptables';
      const words = rule.replaceAll('"', '').split(' ').slice(1);
      await run(program, ['-w', '10', '-t', 'nat', '-D', ...words]);
    }
  };

  test('is two rules per subnet, for traffic out and for host ports, which are restored after a flush, and removed with the network', async () => {
    const stateDir = await mkdtemp('/var/tmp/podvm-networks-');
    try {
      const { routes, rules6 } = await readNodeFacts(soon());
      const { isUsable } = await readIpv6(routes, rules6);
      await openDefaultNetwork(stateDir, soon());
      const rules = await rulesFor(stateDir);
      assert.equal(rules.length, isUsable ? 4 : 2, rules.join('\n'));
      assert.match(rules[0] ?? '', /-s 10\.[0-9.]+\/20 ! -o podvm\d+ .*-j MASQUERADE$/);
      assert.match(rules[1] ?? '', /-s 10\.[0-9.]+\/20 -o podvm\d+ -m conntrack --ctstate DNAT .*-j MASQUERADE$/);
      await openDefaultNetwork(stateDir, soon());
      assert.deepEqual(await rulesFor(stateDir), rules);
      await flush(rules);
      assert.deepEqual(await rulesFor(stateDir), []);
      await openDefaultNetwork(stateDir, soon());
      assert.deepEqual(await rulesFor(stateDir), rules);
    } finally {
      await removeDefaultNetwork(stateDir, soon());
      await rm(stateDir, { recursive: true });
    }
    assert.deepEqual(await rulesFor(stateDir), []);
  });

  test('is checked in the background while a node runs', async () => {
    const stateDir = await mkdtemp('/var/tmp/podvm-networks-');
    const network = createHostNetwork({ stateDir, log: silentLog, lookAgainMs: 0 });
    const attach = async (at: number) => {
      const pod = { podName: 'pod', podNamespace: 'default', podUid: 'uid' };
      const request = { ...pod, sandboxId: `way-${at}`, mode: 'cni', hostPorts: [], tapOwnerUid: 64_999 } as const;
      await using attachment = await network.prepare(request, soon());
      await attachment.connect(soon());
    };
    try {
      await attach(1);
      const rules = await rulesFor(stateDir);
      await flush(rules);
      await attach(2);
      for (const deadline = soon(); (await rulesFor(stateDir)).length < rules.length;) deadline.throwIfAborted();
      assert.deepEqual(await rulesFor(stateDir), rules);
    } finally {
      await network.collect(new Set(), soon());
      await removeDefaultNetwork(stateDir, soon());
      await rm(stateDir, { recursive: true });
    }
    assert.deepEqual(await rulesFor(stateDir), []);
  });
});

describe('pods on the network', { skip, timeout: 240_000 }, () => {
  const image = 'localhost/podvm/base:latest';
  const port = { hostPort: 19_885, containerPort: 8080, protocol: 'TCP', hostIP: '127.0.0.1' } as const;
  const open = { hostPort: 19_887, containerPort: 8080, protocol: 'TCP' } as const;
  let node: Node;
  let server: Sandbox;
  let main: Container;

  before(async () => {
    node = await openNode();
    server = await node.sandboxes.run({ ...sandboxSpec, name: 'server', hostPorts: [port, open] }, soon());
    const command = ['sh', '-c', 'mkdir /tmp/www; echo page > /tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www'];
    main = await server.createContainer({ ...containerSpec, name: 'httpd', image, command }, soon());
    await main.start(soon());
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
    assert.deepEqual(await node.leftovers(), []);
  });

  test('two pods reach each other by address, of each family that the node has', async () => {
    const [address = '', address6, ...more] = server.status.addresses;
    assert.match(address, /^10\./);
    assert.deepEqual(more, []);
    const { routes, rules6 } = await readNodeFacts(soon());
    const { isUsable } = await readIpv6(routes, rules6);
    assert.equal(address6 !== undefined, isUsable);
    const client = await node.sandboxes.run({ ...sandboxSpec, name: 'client' }, soon());
    const url6 = address6 === undefined ? '' : `http://[${address6}]:8080/`;
    const script = `for n in $(seq 100); do wget -q -O - http://${address}:8080/ && break; sleep 0.1; done
      ${url6 === '' ? 'echo page' : `exec wget -q -T 5 -O - ${url6}`}`;
    const command = ['sh', '-c', script];
    const container = await client.createContainer({ ...containerSpec, name: 'wget', image, command }, soon());
    let said = '';
    const follower = container.follow(async ({ bytes }) => void (said += Buffer.from(bytes).toString()));
    await container.start(soon());
    const { exitCode } = await container.exited;
    await follower.ended;
    assert.deepEqual([exitCode, said.slice(-10)], [0, 'page\npage\n']);
    if (url6 !== '') assert.equal(await untilFetched(url6), 'page\n');
    await client.remove();
  });

  test('the driver of an emulated NIC takes no interrupts of sent frames', async () => {
    const isOff = 'read -r said </sys/module/virtio_net/parameters/napi_tx; [ "$said" = N ]';
    assert.equal((await (await main.exec(exec(isOff), soon())).exited).exitCode, 0);
  });

  test('a pod with bandwidths is limited to them in both directions, and one without is not', async () => {
    const bytes = 2 * 1024 * 1024;
    await using page = await servePage(Buffer.alloc(bytes));
    const limits = { 'kubernetes.io/ingress-bandwidth': '8M', 'kubernetes.io/egress-bandwidth': '8M' };
    const limited = await node.sandboxes.run({ ...sandboxSpec, name: 'limited', annotations: limits }, soon());
    const container = await limited.createContainer({ ...containerSpec, image, command: ['sleep', '100'] }, soon());
    await container.start(soon());
    // A file of letters: wget posts strings only.
    const make = await container.exec(exec(`head -c ${bytes} /dev/zero | tr '\\0' x > /tmp/body`), soon());
    assert.equal((await make.exited).exitCode, 0);
    const timed = async (from: Container, script: string) => {
      const startedMs = performance.now();
      assert.equal((await (await from.exec(exec(script), soon())).exited).exitCode, 0);
      return performance.now() - startedMs;
    };
    const inMs = await timed(container, `wget -q -O /dev/null ${page.url}`);
    const outMs = await timed(container, `wget -q -O /dev/null --post-file /tmp/body ${page.url}`);
    // 2 MiB at 1 MB a second, less the burst of a quarter of a second: the shortest time on any machine.
    const leastMs = 1500;
    for (const ms of [inMs, outMs]) assert.ok(ms > leastMs, `${inMs} ms in, ${outMs} out, ${page.received} bytes`);
    const isFree = async () => (await timed(main, `wget -q -O /dev/null ${page.url}`)) < leastMs || undefined;
    assert.ok(await poll(isFree, { everyMs: 100, signal: soon() }), 'the other pod is limited, too');
    assert.equal(page.received, bytes);
    await limited.remove();
  });

  test('a server on 127.0.0.1 of the pod alone is reached through the channel, and not by its address', async () => {
    const { exitCode } = await (await main.exec(exec('httpd -p 127.0.0.1:8081 -h /tmp/www'), soon())).exited;
    assert.equal(exitCode, 0);
    const stream = await server.dial(8081, undefined, soon());
    stream.end('GET / HTTP/1.0\r\n\r\n');
    const said = Buffer.concat(await Array.fromAsync(stream as AsyncIterable<Buffer>)).toString();
    assert.match(said, /page\n$/);
    await assert.rejects(fetch(`http://${server.status.addresses[0]}:8081/`, { signal: AbortSignal.timeout(5000) }));
  });

  test('a host port is reached by 127.0.0.1, ::1 and the addresses of the node, from the node and from a pod', async () => {
    const addresses = addressesOfNode();
    for (const host of ['127.0.0.1', 'localhost', '[::1]', ...addresses.map(urlHost)])
      assert.equal(await untilFetched(`http://${host}:${open.hostPort}/`), 'page\n', host);
    const client = await node.sandboxes.run({ ...sandboxSpec, name: 'hairpin' }, soon());
    const container = await client.createContainer({ ...containerSpec, image, command: ['sleep', '100'] }, soon());
    await container.start(soon());
    const ipv4 = addresses.find((address) => !address.includes(':')) ?? assert.fail();
    for (const from of [container, main]) {
      const script = `test "$(wget -q -T 5 -O - http://${ipv4}:${open.hostPort}/)" = page`;
      assert.equal((await (await from.exec(exec(script), soon())).exited).exitCode, 0);
    }
    await client.remove();
  });

  test('pods do not reach the node’s 127.0.0.1 through a host port', async () => {
    const { plugins } = await openDefaultNetwork(join(node.directory, 'network'), soon());
    const setting = `/proc/sys/net/ipv4/conf/${String(plugins[0]?.['bridge'])}/route_localnet`;
    assert.equal(await readFile(setting, 'utf8'), '0\n');
  });

  test('a host port that a process listens on, or a pod of another podvm has, is refused by name', async () => {
    await using other = await openNode();
    const late = (hostPorts: readonly HostPort[]) =>
      other.sandboxes.run({ ...sandboxSpec, name: 'late', hostPorts }, soon());
    const ours = new RegExp(`host port ${open.hostPort}/TCP: pod ${sandboxSpec.namespace}/server has it`);
    await assert.rejects(late([open]), ours);
    await assert.rejects(late([{ ...open, hostIP: '127.0.0.1' }]), /server has it/);
    const listener = createServer().listen(0, '127.0.0.1');
    await once(listener, 'listening');
    const { port: hostPort } = listener.address() as AddressInfo; // SAFE: it listens on TCP
    await assert.rejects(late([{ ...open, hostPort }]), new RegExp(`pod \\S+/late .*: process ${process.pid} `));
    listener.close();
    assert.deepEqual(await other.leftovers(), []);
  });

  test('a host port on 127.0.0.1 leads to the pod only from there, and ends with it', async () => {
    assert.equal(await untilFetched(`http://127.0.0.1:${port.hostPort}/`), 'page\n');
    for (const host of ['[::1]', ...addressesOfNode().map(urlHost)])
      await assert.rejects(fetch(`http://${host}:${port.hostPort}/`, { signal: AbortSignal.timeout(2000) }), host);
    await server.remove();
    for (const { hostPort } of [port, open])
      await assert.rejects(fetch(`http://127.0.0.1:${hostPort}/`, { signal: AbortSignal.timeout(2000) }));
  });
});

/** Addresses of each family, without link-local ones. */
const addressesOfNode = () =>
  Object.values(networkInterfaces())
    .flatMap((each) => each ?? [])
    .filter(({ internal, address }) => !internal && !address.startsWith('fe80:'))
    .map(({ address }) => address);

const urlHost = (address: string) => (address.includes(':') ? `[${address}]` : address);

const exec = (script: string) => ({ command: ['sh', '-c', script], tty: false, stdin: false }) as const;

/** Serves a page on an address of this host that pods reach, and accepts POST requests. */
async function servePage(body: Buffer) {
  const page = { received: 0 };
  const server = createServer((request, response) => {
    const isPost = request.method === 'POST';
    request.on('data', (chunk: Buffer) => (page.received += chunk.length));
    request.on('end', () => response.end(isPost ? 'thanks' : body));
  });
  const others = Object.values(networkInterfaces()).flatMap((each) => each ?? []);
  const host = others.find(({ family, internal }) => family === 'IPv4' && !internal)?.address;
  await once(server.listen(0, host), 'listening');
  const { port } = server.address() as AddressInfo; // SAFE: it listens on TCP
  return {
    url: `http://${host}:${port}/`,
    get received() {
      return page.received;
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await promisify(server.close.bind(server))();
    },
  };
}

/** Returns the answer of the server, once it listens. */
async function untilFetched(url: string): Promise<string> {
  for (const deadline = soon(); ; deadline.throwIfAborted()) {
    const answer = await fetch(url, { signal: AbortSignal.timeout(5000) }).catch(() => undefined);
    if (answer?.ok === true) return await answer.text();
  }
}
