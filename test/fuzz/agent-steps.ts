import fc from 'fast-check';
import * as v from 'valibot';
import { frameKinds } from '#wire/frame.ts';
import { type Method, paramSchemas } from '#wire/messages.ts';
import { valuesOf, type Vocabulary } from './schema-values.ts';
import { anyUnicode } from '../any-unicode.ts';

/**
 * Traffic of a host to the agent that follows the protocol, apart from single faults. A run is a list of steps; each
 * except `read` becomes bytes, of which some may be changed or missing.
 */
const damage = v.object({ changes: v.array(v.tuple([v.number(), v.number()])), cut: v.number() });
export type Damage = v.InferOutput<typeof damage>;
const call = v.object({
  do: v.literal('call'),
  /** Added to the next number: makes calls with the same number, and out of order. */
  idShift: v.number(),
  method: v.string(),
  params: v.unknown(),
  /** Number of frames into which it is cut. */
  frames: v.number(),
  /** Whether its answer is waited for. */
  waits: v.boolean(),
  damage,
});
const frame = v.object({
  do: v.literal('frame'),
  kind: v.number(),
  stream: v.number(),
  /** 0: the connection's. */
  epochShift: v.number(),
  bytes: v.number(),
  /** Added to the length in its header, with a matching check. */
  lengthShift: v.number(),
  times: v.number(),
  damage,
});
export const stepsSchema = v.array(
  v.variant('do', [
    call,
    frame,
    /** Any text in a frame of messages. */
    v.object({ do: v.literal('text'), kind: v.number(), text: v.string(), times: v.number(), damage }),
    v.object({ do: v.literal('credit'), stream: v.number(), bytes: v.number(), damage }),
    v.object({ do: v.literal('hello'), versions: v.array(v.unknown()), isNew: v.boolean(), damage }),
    v.object({ do: v.literal('bytes'), hex: v.string() }),
    /** Whether the host reads the output of the agent. */
    v.object({ do: v.literal('read'), on: v.boolean() }),
  ]),
);
export type Step = v.InferOutput<typeof stepsSchema>[number];

/** Ports of the servers that `dial` finds, see echo-server.ts. */
export const ports = { echo: 7, discard: 9, flood: 19, close: 20 } as const;
export const volumeNames = ['v0', 'v1', 'v2'] as const;

const volume = fc.constantFrom(...volumeNames);
const container = fc.constantFrom('c0', 'c1');
const serial = fc.constantFrom('d0', 'd1');
const stream = fc.nat(6);
const prefix = fc.constantFrom('10.0.0.5/24', 'fd00::5/64', '10.0.0.5/33', '::/0', '0.0.0.0/0', '10.0.0.5', '', '/');
const texts = fc.constantFrom('', 'a', 'A=b', 'x'.repeat(5000), '\0', 'ü\u{1f600}', '=');
const words: Vocabulary = {
  'name string': volume,
  'volume string': volume,
  'containerId string': container,
  'id string': container,
  'execId string': container,
  'serial string': serial,
  'disk string': serial,
  'imageDisk string': serial,
  'port string': serial,
  'stream number': stream,
  'stdin number': stream,
  'stdout number': stream,
  'stderr number': stream,
  'port number': fc.oneof(
    { weight: 8, arbitrary: fc.constantFrom(...Object.values(ports)) },
    { weight: 1, arbitrary: fc.nat(65_535) },
  ),
  'address string': fc.constantFrom('localhost', '127.0.0.1', '::1', '127.0.0.1', 'localhost', 'fe80::1', 'x'),
  'addresses string': prefix,
  'destination string': prefix,
  'gateway string': fc.constantFrom('10.0.0.1', 'fd00::1', '::', ''),
  'timeoutMs number': fc.constantFrom(0, 1, 50),
  'graceMs number': fc.constantFrom(0, 1, 50),
  'push number': fc.nat(5),
  'realtimeMs number': fc.constantFrom(0, 1.5, -1, 1_700_000_000_000, 1_800_000_000_000.5, 2 ** 53, 8.64e15, 8.65e15),
  'path string': fc.constantFrom(
    'a',
    'a/b',
    'b',
    'a/b/c',
    '../x',
    'a//b',
    '/',
    '\0',
    'x'.repeat(300),
    'a/'.repeat(2000),
  ),
  'data string': fc.constantFrom(
    '',
    'AAAA',
    'AA==',
    'A',
    'A===',
    '====',
    'AA=A',
    'A'.repeat(87_380),
    '\u{1f600}',
    'AA\n=',
  ),
  'entropy string': fc.constantFrom('', 'AAAA', '!', 'A'.repeat(1024)),
  'args custom': fc.array(texts, { minLength: 1, maxLength: 5 }),
  'env custom': fc.array(texts, { maxLength: 5 }),
  'sizeLimitBytes number': fc.constantFrom(0, 1, 4096, 65_536, 2 ** 40),
};

const methods = Object.keys(paramSchemas) as Method[]; // SAFE: the keys of that very table
/** Methods that work on a host. Shutdown, and those that wait ten seconds for a device, are rare. */
const often: readonly Method[] = [
  'createVolume',
  'beginPush',
  'pushFile',
  'commitPush',
  'removeVolume',
  'dial',
  'configure',
];
const seldom: readonly Method[] = ['shutdown', 'attachDisk', 'growDisk'];
const weightOf = (method: Method) => (often.includes(method) ? 40 : seldom.includes(method) ? 1 : 8);

const paramsOf = (method: Method): fc.Arbitrary<unknown> => {
  const any = valuesOf(paramSchemas[method], words);
  return method === 'createVolume' ? fc.oneof({ weight: 3, arbitrary: inMemory }, { weight: 1, arbitrary: any }) : any;
};
const inMemory = fc.record(
  {
    name: volume,
    kind: fc.constantFrom('push', 'push', 'tmpfs'),
    inPlace: fc.boolean(),
    fsGroup: fc.constantFrom(0, 2000),
  },
  { requiredKeys: ['name', 'kind'] },
);

const none = { changes: [], cut: 0 };
const damages = fc.oneof(
  { weight: 100, arbitrary: fc.constant(none) },
  {
    weight: 1,
    arbitrary: fc.record({
      changes: fc.array(fc.tuple(fc.nat(400), fc.nat(255)), { maxLength: 4 }),
      cut: fc.oneof(fc.constant(0), fc.integer({ min: -40, max: 400 })),
    }),
  },
);

const calls: fc.Arbitrary<Step> = fc
  .oneof(...methods.map((method) => ({ weight: weightOf(method), arbitrary: fc.constant(method) })))
  .chain((method) =>
    fc.record({
      do: fc.constant('call' as const),
      idShift: fc.oneof(
        { weight: 20, arbitrary: fc.constant(0) },
        { weight: 1, arbitrary: fc.integer({ min: -3, max: 3 }) },
      ),
      method: fc.oneof(
        { weight: 40, arbitrary: fc.constant<string>(method) },
        { weight: 1, arbitrary: fc.constantFrom('__proto__', 'constructor', '', 'pingg') },
      ),
      params: paramsOf(method),
      frames: fc.oneof(
        { weight: 8, arbitrary: fc.constant(1) },
        { weight: 1, arbitrary: fc.integer({ min: 2, max: 5 }) },
      ),
      waits: fc.boolean(),
      damage: damages,
    }),
  );

/** Kinds of frames: mostly data, sometimes others, and unknown ones. */
const frames: fc.Arbitrary<Step> = fc.record({
  do: fc.constant('frame' as const),
  kind: fc.oneof(
    { weight: 6, arbitrary: fc.constant(frameKinds.data) },
    { weight: 3, arbitrary: fc.constantFrom(frameKinds.end, frameKinds.reset) },
    { weight: 1, arbitrary: fc.nat(9) },
  ),
  stream,
  epochShift: fc.oneof({ weight: 12, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.constantFrom(1, -1) }),
  bytes: fc.constantFrom(0, 1, 4, 100, 16_383, 16_384, 16_385),
  lengthShift: fc.oneof(
    { weight: 20, arbitrary: fc.constant(0) },
    { weight: 1, arbitrary: fc.integer({ min: -4, max: 4 }) },
  ),
  times: fc.constantFrom(1, 1, 1, 2, 3, 8, 70),
  damage: damages,
});

const deep = (open: string, count: number) => `{"t":"call","id":1,"method":"ping","params":${open.repeat(count)}`;
const textsOfMessages: fc.Arbitrary<Step> = fc.record({
  do: fc.constant('text' as const),
  kind: fc.constantFrom(frameKinds.hello, frameKinds.message, frameKinds.message, frameKinds.part),
  text: fc.oneof(
    fc.constantFrom(
      deep('[', 100_000),
      deep('{"a":', 40_000),
      deep('"', 1),
      '{"t":"hello","versions":[1]}',
      '',
      '\0',
      ' ',
    ),
    fc.constantFrom(
      '{"t":"call","id":1e9,"method":"ping","params":{}}',
      '{"t":"result","id":1,"value":{}}',
      '[]',
      '1e999',
    ),
    fc.json(),
    anyUnicode({ maxLength: 60 }),
  ),
  times: fc.constantFrom(1, 1, 1, 40),
  damage: damages,
});

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 12, arbitrary: calls },
  { weight: 6, arbitrary: frames },
  { weight: 1, arbitrary: textsOfMessages },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('credit' as const),
      stream,
      bytes: fc.constantFrom(0, 1, 1000, 65_536, 0x7fff_ffff, 0xffff_ffff),
      damage: damages,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('hello' as const),
      versions: fc.constantFrom<unknown[]>(
        [1],
        [1],
        [],
        [0],
        ['1'],
        [1, 2 ** 53],
        Array.from({ length: 17 }, () => 1),
      ),
      isNew: fc.boolean(),
      damage: damages,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('bytes' as const),
      hex: fc.oneof(
        fc.constant('50564d31'),
        fc.constant('50564d31'.repeat(6)),
        fc.uint8Array({ maxLength: 64 }).map(toHex),
      ),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('read' as const), on: fc.boolean() }) },
);

function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

const plain = (method: Method, params: unknown): Step => ({
  ...{ do: 'call', idShift: 0, method, params, frames: 1, waits: true, damage: none },
});
/** A volume with a push under way, and a connection, which half of the runs begin with. */
const begun: readonly Step[] = [
  plain('createVolume', { name: 'v0', kind: 'push' }),
  plain('beginPush', { volume: 'v0' }),
  plain('dial', { stream: 1, address: '127.0.0.1', port: ports.echo }),
];

export const steps: fc.Arbitrary<readonly Step[]> = fc
  .tuple(fc.constantFrom([], begun), fc.array(step, { minLength: 1, maxLength: 40, size: 'max' }))
  .map(([first, then]) => [...first, ...then]);
