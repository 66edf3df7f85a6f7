import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { kindOf, type ErrorKind } from '#base/errors.ts';
import type { AttachmentRequest, GuestNetwork, Network } from '../network.ts';
import type { PortAddress } from '../port-address.ts';

/** A network and its surroundings, for the suite. Disposing removes everything that is left of it. */
export interface NetworkHarness extends AsyncDisposable {
  /** Opens the network as a new process: the second call is that of a process after a crash. */
  open(): Network;
  /** A valid request in a network, with a new id. */
  makeRequest(): AttachmentRequest;
  /** Traces of that sandbox on the host; empty when it is gone. */
  leftovers(sandboxId: string): Promise<readonly string[]>;
  /** The host ports that rules of the host lead to that sandbox. */
  forwards(sandboxId: string): Promise<readonly number[]>;
  /** Describes the holder of a port of the host, as seen by a process that knows nothing of the network. */
  holderOf(port: PortAddress): Promise<string>;
}

export interface NetworkSuiteOptions {
  readonly skip?: string | false;
  /** Times at which `connect` is aborted, in `ms` after it begins. */
  readonly abortsAtMs: readonly number[];
}

const soon = () => AbortSignal.timeout(60_000);
const kind = (expected: ErrorKind) => (error: unknown) => {
  assert.equal(kindOf(error), expected, String(error));
  return true;
};

/** The suite that every `Network` passes. */
export function describeNetwork(
  name: string,
  openHarness: () => Promise<NetworkHarness>,
  options: NetworkSuiteOptions,
) {
  describe(`the ${name} network`, { skip: options.skip ?? false, timeout: 300_000 }, () => {
    let harness: NetworkHarness;
    before(async () => {
      harness = await openHarness();
    });
    after(async () => await harness[Symbol.asyncDispose]());
    describe('prepare()', () => describePrepare(() => harness));
    describe('connect()', () => describeConnect(() => harness, options));
    describe('after a crash', () => describeCrash(() => harness));
  });
}

type Harness = () => NetworkHarness;

async function assertNothingLeft(harness: NetworkHarness, { sandboxId }: AttachmentRequest): Promise<void> {
  assert.deepEqual(await harness.leftovers(sandboxId), []);
}

function describePrepare(harness: Harness): void {
  test('refuses invalid ids, names and host ports, and leaves nothing', async () => {
    const network = harness().open();
    const request = harness().makeRequest();
    const port = { hostPort: 80, containerPort: 80, protocol: 'TCP' } as const;
    const bad: readonly Partial<AttachmentRequest>[] = [
      { sandboxId: '' },
      { sandboxId: '../x' },
      { sandboxId: 'x'.repeat(41) },
      { podName: 'a;CNI_COMMAND=DEL' },
      { podNamespace: 'a=b' },
      { podUid: 'a\nb' },
      { hostPorts: [{ ...port, hostPort: 0 }] },
      { hostPorts: [{ ...port, hostPort: 65_536 }] },
      { hostPorts: [{ ...port, containerPort: 1.5 }] },
      { mode: 'none', hostPorts: [port] },
    ];
    for (const change of bad) {
      await assert.rejects(network.prepare({ ...request, ...change }, soon()), kind('invalid'), JSON.stringify(change));
    }
    await assertNothingLeft(harness(), request);
  });

  test('leaves nothing when it was cancelled before', async () => {
    const request = harness().makeRequest();
    await assert.rejects(harness().open().prepare(request, AbortSignal.abort()), kind('cancelled'));
    await assertNothingLeft(harness(), request);
  });

  test('gives a sandbox one attachment; refuses a second one without harm to the first', async () => {
    const network = harness().open();
    const request = harness().makeRequest();
    await using first = await network.prepare(request, soon());
    const traces = await harness().leftovers(request.sandboxId);
    assert.notDeepEqual(traces, [], 'traces are seen while it is there');
    await assert.rejects(network.prepare(request, soon()), kind('alreadyExists'));
    assert.deepEqual(await harness().leftovers(request.sandboxId), traces);
    await first[Symbol.asyncDispose]();
    await first[Symbol.asyncDispose]();
    await assertNothingLeft(harness(), request);
  });

  test('gives a host port to one sandbox at a time, on each address', async () => {
    const network = harness().open();
    const holding = (hostPorts: AttachmentRequest['hostPorts']) => ({ ...harness().makeRequest(), hostPorts });
    const port = { hostPort: 39_871, containerPort: 80, protocol: 'TCP' } as const;
    await using holder = await network.prepare(holding([{ ...port, hostIP: '127.0.0.1' }]), soon());
    await assert.rejects(network.prepare(holding([port]), soon()), kind('alreadyExists'));
    await assert.rejects(network.prepare(holding([{ ...port, hostIP: '127.0.0.1' }]), soon()), kind('alreadyExists'));
    await using _udp = await network.prepare(holding([{ ...port, protocol: 'UDP' }]), soon());
    await using _other = await network.prepare(holding([{ ...port, hostIP: '127.0.0.2' }]), soon());
    await holder[Symbol.asyncDispose]();
    await using _next = await network.prepare(holding([{ ...port, hostIP: '127.0.0.1' }]), soon());
  });

  test('without a network there is no tap, and nothing to configure', async () => {
    const request: AttachmentRequest = { ...harness().makeRequest(), mode: 'none' };
    await using attachment = await harness().open().prepare(request, soon());
    assert.equal(attachment.tap, undefined);
    const { interfaces, routes } = await attachment.connect(soon());
    assert.deepEqual([interfaces, routes], [[], []]);
    await attachment[Symbol.asyncDispose]();
    await assertNothingLeft(harness(), request);
  });
}

function describeConnect(harness: Harness, { abortsAtMs }: NetworkSuiteOptions): void {
  test('gives addresses, routes and DNS, the same at the second call, and nothing after dispose', async () => {
    const request = harness().makeRequest();
    const attachment = await harness().open().prepare(request, soon());
    const guest = await attachment.connect(soon());
    assert.deepEqual(await attachment.connect(soon()), guest);
    const [only, ...more] = guest.interfaces;
    assert.deepEqual(more, []);
    assert.match(only?.mac ?? '', /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/);
    assert.match(only?.addresses[0] ?? '', /^[0-9.]+\/[0-9]+$/);
    assert.ok(guest.routes.some(({ destination, gateway }) => destination === '0.0.0.0/0' && gateway !== undefined));
    await attachment[Symbol.asyncDispose]();
    await assert.rejects(attachment.connect(soon()), kind('failedPrecondition'));
    await assertNothingLeft(harness(), request);
  });

  test('makes host ports, TCP, UDP and SCTP, on all addresses and on one, that dispose takes away', async () => {
    const hostPorts = [
      { hostPort: 39_872, containerPort: 80, protocol: 'TCP' },
      { hostPort: 39_873, containerPort: 53, protocol: 'UDP' },
      { hostPort: 39_873, containerPort: 53, protocol: 'SCTP' },
      { hostPort: 39_874, containerPort: 80, protocol: 'TCP', hostIP: '127.0.0.1' },
    ] as const;
    const request = { ...harness().makeRequest(), hostPorts };
    const attachment = await harness().open().prepare(request, soon());
    await attachment.connect(soon());
    const forwarded = new Set(await harness().forwards(request.sandboxId));
    assert.deepEqual(forwarded, new Set([39_872, 39_873]), 'what is on loopback alone needs no rule');
    // Another process with its own state directory sees only that the port is taken.
    for (const port of hostPorts) {
      const { protocol, hostPort, hostIP = '0.0.0.0' } = { hostIP: undefined, ...port };
      const at = { protocol, address: hostIP, port: hostPort };
      assert.match(await harness().holderOf(at), new RegExp(`^pod ${request.podNamespace}/${request.podName} has it$`));
    }
    await attachment[Symbol.asyncDispose]();
    await assertNothingLeft(harness(), request);
  });

  test('assigns an attachment that was connected ahead to a pod, with its host ports', async () => {
    const request = harness().makeRequest();
    const attachment = await harness().open().prepare(request, soon());
    await Promise.all([attachment.connectAhead(soon()), attachment.connectAhead(soon())]);
    const hostPorts = [{ hostPort: 39_875, containerPort: 80, protocol: 'TCP' }] as const;
    attachment.assign({ podName: 'late', podNamespace: 'default', podUid: 'uid', hostPorts });
    const guest = await attachment.connect(soon());
    assert.match(guest.interfaces[0]?.addresses[0] ?? '', /^[0-9.]+\/[0-9]+$/);
    assert.ok((await harness().forwards(request.sandboxId)).includes(39_875));
    await attachment[Symbol.asyncDispose]();
    await assertNothingLeft(harness(), request);
  });

  test('leaves nothing of an attachment that was connected ahead, or was about to be, and never assigned', async () => {
    for (const isAwaited of [true, false]) {
      const request = harness().makeRequest();
      const attachment = await harness().open().prepare(request, soon());
      const connecting = attachment.connectAhead(soon()).catch(kind('cancelled'));
      if (isAwaited) await connecting;
      await attachment[Symbol.asyncDispose]();
      await connecting;
      await assertNothingLeft(harness(), request);
    }
  });

  test('keeps attachments apart that connect side by side', async () => {
    const network = harness().open();
    const requests = Array.from({ length: 4 }, () => harness().makeRequest());
    const attachments = await Promise.all(requests.map((request) => network.prepare(request, soon())));
    const guests = await Promise.all(attachments.map((attachment) => attachment.connect(soon())));
    const all = (of: (guest: GuestNetwork) => string | undefined) => new Set(guests.map(of)).size;
    assert.equal(
      all(({ interfaces }) => interfaces[0]?.addresses[0]),
      4,
    );
    assert.equal(
      all(({ interfaces }) => interfaces[0]?.mac),
      4,
    );
    await Promise.all(attachments.map((attachment) => attachment[Symbol.asyncDispose]()));
    for (const request of requests) await assertNothingLeft(harness(), request);
  });

  test('leaves nothing when it is cancelled halfway', async () => {
    const network = harness().open();
    for (const ms of abortsAtMs) {
      const request = harness().makeRequest();
      const attachment = await network.prepare(request, soon());
      const stop = new AbortController();
      const timer = setTimeout(() => stop.abort(), ms);
      await attachment.connect(stop.signal).catch(kind('cancelled'));
      clearTimeout(timer);
      await attachment[Symbol.asyncDispose]();
      await assertNothingLeft(harness(), request);
    }
  });

  test('is cut short by dispose', async () => {
    const request = harness().makeRequest();
    const attachment = await harness().open().prepare(request, soon());
    const refused = assert.rejects(attachment.connect(soon()), kind('cancelled'));
    await attachment[Symbol.asyncDispose]();
    await refused;
    await assertNothingLeft(harness(), request);
  });
}

function describeCrash(harness: Harness): void {
  test('collect() removes attachments that are not kept, at any stage', async () => {
    const earlier = harness().open();
    const makeRequest = () => harness().makeRequest();
    const [kept, prepared, ahead, connected] = [makeRequest(), makeRequest(), makeRequest(), makeRequest()];
    const attachment = await earlier.prepare(kept, soon());
    const guest = await attachment.connect(soon());
    await earlier.prepare(prepared, soon());
    await (await earlier.prepare(ahead, soon())).connectAhead(soon());
    await (await earlier.prepare(connected, soon())).connect(soon());

    const later = harness().open();
    const collected = await later.collect(new Set([kept.sandboxId]), soon());
    assert.deepEqual(collected, [prepared, ahead, connected].map(({ sandboxId }) => sandboxId).sort());
    for (const request of [prepared, ahead, connected]) await assertNothingLeft(harness(), request);
    assert.deepEqual(await later.collect(new Set([kept.sandboxId]), soon()), []);

    const adopted = await later.adopt(kept.sandboxId, soon());
    assert.ok(adopted);
    assert.deepEqual(await adopted.connect(soon()), guest);
    await assert.rejects(later.prepare(kept, soon()), kind('alreadyExists'));
    await adopted[Symbol.asyncDispose]();
    await assertNothingLeft(harness(), kept);
    assert.equal(await later.adopt(kept.sandboxId, soon()), undefined);
  });
}
