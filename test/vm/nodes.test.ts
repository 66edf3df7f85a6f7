import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import * as v from 'valibot';
import { run } from '#host/process/run.ts';
import { whyNoVm } from './node.ts';
import type { Question } from './node-process.ts';

/**
 * Three nodes, each a network namespace with a process of its own and a CNI configuration, on one wire with routes to
 * each other's pods, as a cluster network sets them up. The nftables rules of such a network on the nodes must have the
 * same effect on machines as on containers.
 */
const skip = await whyNoVm();
const fabric = 'pvtest-wire';
const netnsOf = (node: number) => `pvtest-node${node}`;
const nodeAddress = (node: number) => `172.31.77.${node}`;
const podPrefix = (node: number) => `10.220.${node}.0/24`;
const nodes = [1, 2, 3] as const;

interface Node extends AsyncDisposable {
  ask(question: Question): Promise<unknown>;
}

const inNode = (node: number, program: string, args: readonly string[], input = '') =>
  run('nsenter', [`--net=/run/netns/${netnsOf(node)}`, program, ...args], { input });

/** Rules of a node, in nft's own words; it wants its last line ended. */
const rules = (node: number, script: string) => inNode(node, 'nft', ['-f', '-'], `${script}\n`);

async function makeWire(): Promise<AsyncDisposable> {
  await using undo = new AsyncDisposableStack();
  for (const name of [fabric, ...nodes.map(netnsOf)]) {
    await run('ip', ['netns', 'add', name]);
    undo.defer(async () => void (await run('ip', ['netns', 'delete', name])));
  }
  await run('ip', ['-netns', fabric, 'link', 'add', 'wire', 'type', 'bridge']);
  await run('ip', ['-netns', fabric, 'link', 'set', 'wire', 'up']);
  for (const node of nodes) {
    const peer = ['peer', 'name', 'uplink', 'netns', netnsOf(node)];
    await run('ip', ['-netns', fabric, 'link', 'add', `to${node}`, 'type', 'veth', ...peer]);
    await run('ip', ['-netns', fabric, 'link', 'set', `to${node}`, 'master', 'wire', 'up']);
    const script = [
      'link set lo up',
      `address add ${nodeAddress(node)}/24 dev uplink`,
      'link set uplink up',
      ...nodes
        .filter((other) => other !== node)
        .map((other) => `route add ${podPrefix(other)} via ${nodeAddress(other)}`),
    ];
    await run('ip', ['-netns', netnsOf(node), '-batch', '-'], { input: script.join('\n') });
  }
  return undo.move();
}

async function openNode(node: number, directory: string): Promise<Node> {
  const configDirectory = join(directory, `net.d-${node}`);
  await mkdir(configDirectory);
  const ipam = {
    type: 'host-local',
    dataDir: join(directory, `ipam-${node}`),
    ranges: [[{ subnet: podPrefix(node) }]],
    routes: [{ dst: '0.0.0.0/0' }],
  };
  const plugins = [{ type: 'bridge', bridge: 'pods', isGateway: true, ipam }];
  await writeFile(
    join(configDirectory, '10.conflist'),
    JSON.stringify({ cniVersion: '1.0.0', name: 'podvm', plugins }),
  );
  const script = join(import.meta.dirname, 'node-process.ts');
  const args = [`--net=/run/netns/${netnsOf(node)}`, process.execPath, script, configDirectory];
  const child = spawn('nsenter', args, { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  const exited = once(child, 'exit');
  const answerSchema = v.union([v.object({ said: v.unknown() }), v.object({ error: v.string() })]);
  const nextAnswer = async () => {
    const gone = exited.then(() => Promise.reject(new Error(`node ${node} ended`)));
    const [message] = (await Promise.race([once(child, 'message'), gone])) as unknown[];
    const answer = v.parse(answerSchema, message);
    if ('error' in answer) throw new Error(`node ${node}: ${answer.error}`);
    return answer.said;
  };
  await nextAnswer();
  return {
    ask: async (question) => {
      child.send(question);
      return await nextAnswer();
    },
    [Symbol.asyncDispose]: async () => {
      if (child.exitCode === null) child.kill('SIGKILL');
      await exited;
    },
  };
}

describe('three nodes', { skip, timeout: 240_000 }, () => {
  const stack = new AsyncDisposableStack();
  const open: Node[] = [];
  const [server, ...clients] = ['server', 'front', 'stranger'];
  const addresses: string[] = [];
  const nodeOf = (node: number) => open[node - 1] ?? assert.fail(`no node ${node}`);
  const fetchFrom = (node: number, url: string) =>
    nodeOf(node).ask({ verb: 'fetch', pod: clients[node - 2] ?? '', url });

  before(async () => {
    const directory = await mkdtemp('/var/tmp/podvm-nodes-');
    stack.defer(() => rm(directory, { recursive: true }));
    stack.use(await makeWire());
    for (const node of nodes) open.push(stack.use(await openNode(node, directory)));
    for (const [at, pod] of [server, ...clients].entries()) {
      const said = await nodeOf(at + 1).ask({ verb: 'run', pod: pod ?? '' });
      addresses.push(v.parse(v.tuple([v.pipe(v.string(), v.startsWith('10.220.'))]), said)[0]);
    }
  });
  after(async () => {
    try {
      const left = await Promise.allSettled(open.map((node) => node.ask({ verb: 'end' })));
      assert.deepEqual(
        left,
        open.map(() => ({ status: 'fulfilled', value: [] })),
      );
    } finally {
      await stack.disposeAsync();
    }
  });

  test('pods on different nodes reach each other by their own addresses', async () => {
    const [address = '', ...others] = addresses;
    for (const node of [2, 3]) assert.equal(await fetchFrom(node, `http://${address}:8080/`), server);
    const back = await nodeOf(1).ask({ verb: 'fetch', pod: server ?? '', url: `http://${others[0]}:8080/` });
    assert.equal(back, clients[0]);
  });

  test('a network policy by addresses and ports applies to a machine, and so do its changes', async () => {
    const [address = '', front = '', stranger = ''] = addresses;
    await rules(
      1,
      `table inet guard {
        set allowed { type ipv4_addr; elements = { ${front} } }
        chain forward {
          type filter hook forward priority filter; policy accept;
          ip daddr ${address} tcp dport 8080 ip saddr @allowed counter accept comment "allowed"
          ip daddr ${address} counter drop comment "denied"
        }
      }`,
    );
    const url = `http://${address}:8080/`;
    assert.deepEqual([await fetchFrom(2, url), await fetchFrom(3, url)], [server, null]);
    const { stdout } = await inNode(1, 'nft', ['list', 'table', 'inet', 'guard']);
    for (const comment of ['allowed', 'denied']) {
      assert.match(stdout, new RegExp(`counter packets [1-9]\\d* .*comment "${comment}"`));
    }
    await rules(1, `add element inet guard allowed { ${stranger} }`);
    assert.equal(await fetchFrom(3, url), server);
  });

  test("a service's address, rewritten on the client's node as kube-proxy does, leads to the pod", async () => {
    const [address = ''] = addresses;
    await rules(
      2,
      `table ip proxy {
        chain services {
          type nat hook prerouting priority dstnat;
          ip daddr 10.96.0.10 tcp dport 80 dnat to ${address}:8080
        }
      }`,
    );
    assert.equal(await fetchFrom(2, 'http://10.96.0.10/'), server);
    assert.equal(await fetchFrom(3, 'http://10.96.0.10/'), null);
  });
});
