import assert from 'node:assert/strict';
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { silentLog } from '#host/log/log.ts';
import { run } from '#host/process/run.ts';
import { bridgeOf, removeDefaultNetwork } from '#network/default-network.ts';
import { createHostNetwork } from '#network/host-network.ts';
import type { Attachment, GuestNetwork } from '#network/network.ts';
import { runInBuildRoot } from '#setup/parts/build-root.ts';
import { faultOf } from './frame-judge.ts';
import { type Address, type Addresses, encode, type Frame, frames, framesSchema } from './frame-steps.ts';
import { buildRoot } from '../built-program.ts';
import { whyNoServer } from './scripted-guest.ts';
import { type Bench, defineTarget } from './target.ts';

/** Two pods of the built-in network, without machines: frames go into the tap of one, and come out of the other's. */
export const layer2 = defineTarget<readonly Frame[]>({
  name: 'frames',
  whyNot: whyNoServer,
  runs: frames,
  schema: framesSchema,
  runTimeoutMs: 20_000,
  open,
});

const soon = () => AbortSignal.timeout(60_000);
const arrivalMs = 15_000;
/** Time after which a frame that has not arrived is sent again: a busy kernel drops frames. */
const resendMs = 1_000;

interface Pod {
  readonly attachment: Attachment;
  readonly guest: GuestNetwork;
  readonly tap: Tap;
}

async function open(): Promise<Bench<readonly Frame[]>> {
  await using undo = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'podvm-frames-'));
  undo.defer(() => rm(directory, { recursive: true, force: true }));
  await runInBuildRoot({
    buildRoot,
    workDir: directory,
    program: 'gcc',
    args: ['-O1', '-Wall', '-Wextra', '-Werror', '-o', 'tap-frames', '/attacks/tap-frames.c'],
    readOnly: { '/attacks': join(import.meta.dirname, '../attacks') },
    signal: soon(),
  });
  const stateDir = join(directory, 'network');
  const network = createHostNetwork({ stateDir, log: silentLog });
  undo.defer(() => removeDefaultNetwork(stateDir, soon()));
  const openPod = async (name: string): Promise<Pod> => {
    const sandboxId = `fuzz-${process.pid}-${name}`;
    const owner = { podName: name, podNamespace: 'fuzz', podUid: name, hostPorts: [] };
    const attachment = await network.prepare({ ...owner, sandboxId, mode: 'cni', tapOwnerUid: 0 }, soon());
    undo.use(attachment);
    const guest = await attachment.connect(soon());
    const tap = new Tap(join(directory, 'tap-frames'), attachment);
    undo.defer(() => tap.close());
    await tap.opened;
    return { attachment, guest, tap };
  };
  const attacker = await openPod('attacker');
  const victim = await openPod('victim');
  const bridge = (await bridgeOf(stateDir)) ?? assert.fail('no bridge');
  const addresses = await addressesOf(attacker.guest, victim.guest, bridge);
  const table = async () =>
    (await run('bridge', ['fdb', 'show', 'br', bridge])).stdout.split('\n').filter(isLearned).sort();
  const honest = honestFrames(addresses);
  // Once each has been seen, the bridge knows them.
  const reach = async () => {
    const frame = honest.next().value;
    const came = await victim.tap.until(frame, () => attacker.tap.send(frame));
    return came;
  };
  await reach();
  const inPods = [attacker, victim].map(({ attachment }) => macsOf(['nsenter', `--net=${attachment.netns}`]));
  const found = (await Promise.all([...inPods, macsOf([], ['master', bridge])])).flat();
  const { gateway, attacker: liar } = addresses;
  const nodeMacs = [gateway.mac, ...found.filter((mac) => !mac.equals(liar.mac))]; // a machine has its veth's
  const known = await table();
  const owned = undo.move();
  return {
    async give(run) {
      const sent = run.map((frame) => encode(frame, addresses));
      for (const frame of sent) attacker.tap.send(frame);
      for (const frame of await reach()) {
        const isOfNode = nodeMacs.some((mac) => mac.equals(frame.subarray(6, 12)));
        if (isOfNode && !sent.some((each) => each.equals(frame))) continue;
        const fault = faultOf(frame, addresses);
        assert.equal(fault, undefined, `${fault}: ${frame.toString('hex')}`);
      }
    },
    async finish() {
      assert.deepEqual(await table(), known, 'the bridge has learned nothing');
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Whether the bridge learned the address from a port. `self`: an address of the interface itself. */
const isLearned = (line: string) => !line.includes(' self ');

/** Addresses of the node's interfaces on the way, which send frames of their own. */
async function macsOf(enter: readonly string[], which: readonly string[] = []): Promise<readonly Buffer[]> {
  const [program = '', ...args] = [...enter, 'ip', '-o', 'link', 'show', ...which];
  const { stdout } = await run(program, args);
  return [...stdout.matchAll(/link\/ether (\S+)/g)].map(([, mac = '']) => octetsOf(mac));
}

/** Yields frames that all differ, so that a late one is not taken for the next. */
function* honestFrames(addresses: Addresses): Generator<Buffer, never> {
  const usual = { to: 'victim', from: 'attacker', source: 'attacker', target: 'victim' } as const;
  const unused = { tags: [], kind: 0, claimed: 'attacker', claimedMac: 'attacker', headers: [], changes: [] } as const;
  for (let count = 0; ; count += 1) {
    const ports = [count & 0x7fff, 40_000 + (count >> 15)] as const;
    const frame: Frame = {
      ...{ ...usual, ...unused, tags: [], headers: [], changes: [], ports: [0x8000 | ports[0], ports[1]] },
      ...{ type: 0x0800, protocol: 17, fragment: 0, options: 0, bytes: 32, cut: 0 },
    };
    yield encode(frame, addresses);
  }
}

/** One end of a machine's NIC. */
class Tap {
  readonly #program: ChildProcessByStdio<Writable, Readable, null>;
  #received = Buffer.alloc(0);
  #frames: Buffer[] = [];
  readonly #opened = Promise.withResolvers<void>();
  readonly opened = this.#opened.promise;
  #onFrame: () => void = () => undefined;

  constructor(program: string, { netns, tap }: Attachment) {
    this.#program = spawn(program, [netns, tap?.name ?? ''], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#program.stdout.on('data', (bytes: Buffer) => this.#take(bytes));
    this.#program.stdin.on('error', () => undefined);
    this.#program.once('close', () => this.#opened.reject(new Error('the tap cannot be opened')));
  }

  send(frame: Buffer): void {
    const length = Buffer.alloc(2);
    length.writeUInt16BE(frame.length);
    this.#program.stdin.write(Buffer.concat([length, frame]));
  }

  /** Returns all frames that arrived before the one that `send` sends. */
  async until(last: Buffer, send: () => void): Promise<readonly Buffer[]> {
    const came = Promise.withResolvers<void>();
    const look = () => {
      if (this.#frames.at(-1)?.equals(last) === true) came.resolve();
    };
    this.#onFrame = look;
    const timer = setTimeout(() => came.reject(new Error('an honest frame does not arrive')), arrivalMs);
    const resending = setInterval(send, resendMs);
    send();
    try {
      await came.promise;
    } finally {
      clearInterval(resending);
      clearTimeout(timer);
    }
    return this.#frames.splice(0).slice(0, -1);
  }

  async close(): Promise<void> {
    const closed = once(this.#program, 'close');
    this.#program.stdin.end();
    await closed;
  }

  #take(bytes: Buffer): void {
    this.#received = Buffer.concat([this.#received, bytes]);
    while (this.#received.length >= 2 && this.#received.length >= 2 + this.#received.readUInt16BE(0)) {
      const end = 2 + this.#received.readUInt16BE(0);
      if (end === 2) this.#opened.resolve();
      else this.#frames.push(this.#received.subarray(2, end));
      this.#received = this.#received.subarray(end);
      this.#onFrame();
    }
  }
}

async function addressesOf(attacker: GuestNetwork, victim: GuestNetwork, bridge: string): Promise<Addresses> {
  const gatewayMac = (await readFile(`/sys/class/net/${bridge}/address`, 'utf8')).trim();
  const gateways = attacker.routes.flatMap(({ gateway }) => gateway ?? []);
  const gateway4 = gateways.find((each) => !each.includes(':')) ?? assert.fail('no gateway');
  const gateway6 = gateways.find((each) => each.includes(':')) ?? 'fd00::1';
  const stranger = '02:00:00:00:00:77';
  return {
    attacker: podAddress(attacker),
    victim: podAddress(victim),
    gateway: address(gatewayMac, gateway4, gateway6),
    stranger: address(stranger, '10.86.15.77', 'fd00::77'),
    all: address('ff:ff:ff:ff:ff:ff', '255.255.255.255', 'ff02::1'),
    nobody: { ...address('00:00:00:00:00:00', '0.0.0.0', '::'), local6: Buffer.alloc(16) },
    loopback: address('33:33:00:00:00:01', '127.0.0.1', '::1'),
    metadata: address('01:80:c2:00:00:00', '169.254.169.254', 'fd00:ec2::254'),
    outside: address('01:00:5e:00:00:01', '192.0.2.1', '2001:db8::1'),
  };
}

const octetsOf = (mac: string) => Buffer.from(mac.replaceAll(':', ''), 'hex');

function podAddress({ interfaces }: GuestNetwork): Address {
  const [nic = assert.fail('no interface')] = interfaces;
  const own = nic.addresses.map((each) => each.replace(/\/\d+$/, ''));
  const ip4 = own.find((each) => !each.includes(':')) ?? assert.fail('no address');
  const ip6 = own.find((each) => each.includes(':'));
  const all = address(nic.mac, ip4, ip6 ?? '::');
  return ip6 === undefined ? { ...all, ip6: all.local6 } : all;
}

function address(mac: string, ip4: string, ip6: string): Address {
  const octets = octetsOf(mac);
  const local6 = Buffer.from('fe80000000000000000000fffe000000', 'hex');
  octets.copy(local6, 8, 0, 3);
  octets.copy(local6, 13, 3, 6);
  local6[8] = (local6[8] ?? 0) ^ 2;
  return { mac: octets, ip4: Buffer.from(ip4.split('.').map(Number)), ip6: bytes6(ip6), local6 };
}

function bytes6(text: string): Buffer {
  const [left = '', right] = text.split('::');
  const groups = (part: string) => part.split(':').filter(Boolean);
  const [first, last] = [groups(left), groups(right ?? '')];
  const all = [...first, ...Array.from({ length: 8 - first.length - last.length }, () => '0'), ...last];
  return Buffer.from(all.map((group) => group.padStart(4, '0')).join(''), 'hex');
}
