import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { containerSpec, sandboxSpec } from '#sandbox/testing/examples.ts';
import type { Sandbox, SandboxSpec } from '#sandbox/sandbox.ts';
import { openNode, whyNoVm, type Node } from './node.ts';
import { outputToEnd } from './output-to-end.ts';
import { buildProbe } from './probe.ts';

const skip = await whyNoVm();
const soon = () => AbortSignal.timeout(60_000);
const image = 'localhost/podvm/base:latest';
const port = { hostPort: 19_886, containerPort: 9000, protocol: 'SCTP' } as const;
/** Size of a message, above that of a packet and of a receiver's window. */
const bytes = 1024 * 1024;

describe('SCTP between pods', { skip, timeout: 240_000 }, () => {
  let node: Node;
  let server: Sandbox;
  let client: Sandbox;
  let probe: Buffer;

  const run = (name: string, more: Partial<SandboxSpec>, { sandboxes } = node) => {
    const files = [{ path: 'probe', bytes: probe, mode: 0o755 }];
    return sandboxes.run({ ...sandboxSpec, name, volumes: [{ name: 'probe', kind: 'push', files }], ...more }, soon());
  };
  const mounts = [{ source: { kind: 'volume', name: 'probe' }, mountPath: '/probe', readOnly: true }] as const;
  const says = async (sandbox: Sandbox, command: readonly string[]) =>
    await outputToEnd(await sandbox.createContainer({ ...containerSpec, image, mounts, command }, soon()), soon);
  const ask = (sandbox: Sandbox, address: string, at: number) =>
    says(sandbox, ['/probe/probe', 'ask', address, String(at), String(bytes)]);
  /** Returns one of its kernel's counters of the protocol. */
  const counted = async (sandbox: Sandbox, name: string) => {
    const text = await says(sandbox, ['cat', '/proc/net/sctp/snmp']);
    return Number(new RegExp(`^${name}\\s+(\\d+)$`, 'm').exec(text)?.[1]);
  };

  before(async () => {
    const directory = await mkdtemp('/var/tmp/podvm-sctp-');
    await buildProbe(join(directory, 'probe'), 'sctp-probe');
    probe = await readFile(join(directory, 'probe'));
    await rm(directory, { recursive: true });
    node = await openNode();
    server = await run('server', { sctp: true, hostPorts: [port], sysctls: { 'net.sctp.max_init_retransmits': '7' } });
    const ids = { containerId: 0, hostId: 65_536, size: 65_536 };
    client = await run('client', { sctp: true, userNamespace: { uids: [ids], gids: [ids] } });
    // Privileged, and still without the capability to load modules.
    const security = { ...containerSpec.security, privileged: true };
    for (const [at, address] of server.status.addresses.entries()) {
      const command = ['/probe/probe', 'serve', address, String(port.containerPort)];
      const spec = { ...containerSpec, name: `serve-${at}`, image, mounts, command, security };
      const listening = await server.createContainer(spec, soon());
      const said = Promise.withResolvers<string>();
      listening.follow(async ({ bytes: line }) => said.resolve(Buffer.from(line).toString()));
      await listening.start(soon());
      assert.equal(await said.promise, 'listening\n');
    }
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
    assert.deepEqual(await node.leftovers(), []);
  });

  test("a stream goes to a pod's addresses, of each family it has", async () => {
    assert.equal(await says(server, ['cat', '/sys/module/module/parameters/sig_enforce']), 'Y\n');
    assert.equal(await says(server, ['cat', '/proc/sys/net/sctp/max_init_retransmits']), '7\n');
    for (const address of server.status.addresses)
      assert.equal(await ask(client, address, port.containerPort), 'echoed\n', address);
  });

  test('a stream goes through the host port of an address of the node, of each family that pods have', async () => {
    for (const address of addressesOfNode(server))
      assert.equal(await ask(client, address, port.hostPort), 'echoed\n', address);
  });

  test('a stream leaves another network of pods, and enters by the host port as from outside', async () => {
    await using other = await openNode();
    const caller = await run('caller', { sctp: true }, other);
    for (const address of addressesOfNode(server))
      assert.equal(await ask(caller, address, port.hostPort), 'echoed\n', address);
    await caller.remove();
    assert.deepEqual(await other.leftovers(), []);
  });

  test('no packet arrives with a wrong checksum', async () => {
    for (const sandbox of [server, client]) {
      assert.ok((await counted(sandbox, 'SctpInSCTPPacks')) > 100);
      assert.equal(await counted(sandbox, 'SctpChecksumErrors'), 0);
    }
  });

  test('a pod without a port of SCTP does not have the protocol', async () => {
    const plain = await run('plain', {});
    assert.equal(await ask(plain, server.status.addresses[0] ?? '', port.containerPort), 'socket: EPROTONOSUPPORT\n');
    await plain.remove();
  });
});

/** One of each family that the pod has. */
function addressesOfNode(pod: Sandbox): readonly string[] {
  const all = Object.values(networkInterfaces()).flatMap((each) => each ?? []);
  return pod.status.addresses.map((address) => {
    const family = address.includes(':') ? 'IPv6' : 'IPv4';
    const found = all.find((each) => each.family === family && !each.internal && !each.address.startsWith('fe80:'));
    return found?.address ?? assert.fail(`the node has no address of ${family}`);
  });
}
