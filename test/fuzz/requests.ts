import fc from 'fast-check';
import * as v from 'valibot';
import { type Guest, message, rootNode, u32, u64 } from './scripted-guest.ts';

/**
 * Requests in FUSE's layout, with single fields that a kernel would never send: so they pass the first checks. A run is
 * a list of steps. Nodes and handles of a step are those of earlier answers, by their position, or arbitrary numbers.
 */
export interface Step {
  readonly opcode: number;
  /** Position among the known nodes; a negative one is a number itself. */
  readonly node: number;
  readonly user: number;
  /** Numbers of the body in the order of `layouts`; missing ones are 0. */
  readonly values: readonly number[];
  readonly names: readonly string[];
  /** Bytes cut from its end, or, negative, added to it. */
  readonly cut: number;
}

export const stepsSchema = v.array(
  v.object({
    opcode: v.number(),
    node: v.number(),
    user: v.number(),
    values: v.array(v.number()),
    names: v.array(v.string()),
    cut: v.number(),
  }),
);

/** `h` a handle, `n` a node, `w` 32 bits, `l` 64 bits, `s` a name with its NUL. */
const layouts: ReadonlyMap<number, string> = new Map([
  [1, 's'],
  [2, 'l'],
  [3, 'lh'],
  [4, 'wwhlllllwwwwwwww'],
  [6, 'ss'],
  [8, 'wwwws'],
  [9, 'wws'],
  [10, 's'],
  [11, 's'],
  [12, 'nss'],
  [13, 'ns'],
  [14, 'ww'],
  [15, 'hlwwlww'],
  [16, 'hlwwlwwss'],
  [17, ''],
  [18, 'hwwl'],
  [20, 'hww'],
  [21, 'wwss'],
  [22, 'wws'],
  [23, 'ww'],
  [24, 's'],
  [25, 'hwwl'],
  [26, 'wwww'],
  [27, 'ww'],
  [28, 'hlwwlww'],
  [29, 'hwwl'],
  [30, 'hww'],
  [31, 'hlllwwww'],
  [32, 'hlllwwww'],
  [33, 'hlllwwww'],
  [35, 'wwwws'],
  [36, 'l'],
  [42, 'wwnlnl'],
  [43, 'hllww'],
  [45, 'nwwss'],
  [46, 'hlww'],
  [47, 'hlnhlll'],
  [51, 'wwwws'],
]);

const names = [
  'a',
  'b',
  'c',
  'user.x',
  'system.posix_acl_access',
  '..',
  '.',
  '',
  'a/b',
  'x'.repeat(255),
  'x'.repeat(256),
];
const numbers = [0, 1, 2, 4, 0o200, 0o1000, 0o2001, 0o40, 0o644, 0o4777, 0o40755, 0o100644, 0o20644, 4095, 65_536];
const extremes = [0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 2 ** 32, 2 ** 53 - 1, 2 ** 53, 2 ** 63];

const value = fc.oneof(
  { weight: 6, arbitrary: fc.nat(6) },
  { weight: 4, arbitrary: fc.constantFrom(...numbers) },
  { weight: 2, arbitrary: fc.constantFrom(...extremes) },
  { weight: 1, arbitrary: fc.nat() },
);

const step: fc.Arbitrary<Step> = fc.record({
  opcode: fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom(1, 9, 14, 27, 35) }, // requests that make nodes and handles
    { weight: 6, arbitrary: fc.constantFrom(...layouts.keys()) },
    { weight: 1, arbitrary: fc.nat(60) },
  ),
  node: fc.oneof({ weight: 9, arbitrary: fc.nat(5) }, { weight: 1, arbitrary: fc.integer({ min: -9, max: -1 }) }),
  user: fc.constantFrom(0, 0, 0, 1234, 0xffff_ffff),
  values: fc.array(value, { maxLength: 16 }),
  names: fc.array(fc.constantFrom(...names), { maxLength: 2 }),
  cut: fc.oneof({ weight: 12, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.integer({ min: -64, max: 64 }) }),
});

export const steps: fc.Arbitrary<readonly Step[]> = fc.array(step, { minLength: 1, maxLength: 40 });

/** Sends all requests in order, one at a time. Throws if the server has ended. */
export async function askAll(guest: Guest, run: readonly Step[]): Promise<void> {
  const [nodes, handles] = [[rootNode], [0]];
  for (const { opcode, node, user, values, names: named, cut } of run) {
    const body = bodyOf(layouts.get(opcode) ?? 'wwwwss', values, named, { nodes, handles });
    const whole = cut < 0 ? Buffer.concat([body, Buffer.alloc(-cut, 0x61)]) : body.subarray(0, body.length - cut);
    const asked = node < 0 ? -node * 1000 : (nodes[node % nodes.length] ?? rootNode);
    if (noReply.has(opcode) || mayWait.has(opcode)) {
      guest.send(message(opcode, 2 ** 40, asked, whole, user));
      continue;
    }
    const reply = await guest.ask(opcode, asked, whole, user);
    if (reply.error !== 0) continue;
    if (reply.body.length >= 128) nodes.push(Number(reply.body.readBigUInt64LE(0)));
    if (reply.body.length === 144) handles.push(Number(reply.body.readBigUInt64LE(128)));
    if ((opcode === 14 || opcode === 27) && reply.body.length === 16)
      handles.push(Number(reply.body.readBigUInt64LE(0)));
  }
}

/** Requests without an answer: forgets and interruptions, and locks and flushes that may wait forever. */
const noReply = new Set([2, 36, 42]);
const mayWait = new Set([20, 30, 33]);

interface Known {
  readonly nodes: readonly number[];
  readonly handles: readonly number[];
}

function bodyOf(
  layout: string,
  values: readonly number[],
  named: readonly string[],
  { nodes, handles }: Known,
): Buffer<ArrayBuffer> {
  let [at, name] = [0, 0];
  const pick = (known: readonly number[], number: number) => known[number % known.length] ?? number;
  const parts = layout.split('').map((kind) => {
    if (kind === 's') return Buffer.from(`${named[name++] ?? 'a'}\0`);
    const number = values[at++] ?? 0;
    if (kind === 'w') return u32(number % 2 ** 32);
    if (kind === 'n') return u64(pick(nodes, number));
    return kind === 'h' && number < 2 ** 31 ? u64(pick(handles, number)) : long(number);
  });
  return Buffer.concat(parts);
}

/** Encodes 64 bits, also from a number that is not exact, which a guest can send. */
function long(number: number): Buffer<ArrayBuffer> {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(number));
  return bytes;
}
