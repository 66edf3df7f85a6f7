import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, it } from 'node:test';
import { WebSocket } from 'ws';
import { messageBytes } from '#host/socket/message-bytes.ts';
import { poll } from '#host/wait.ts';
import { type AskedRun, openServingNode, testedKey, type TestedNode } from './testing/serving-node.ts';

const here = 'mnt:[1]';

interface Wish {
  readonly key?: string;
  readonly mountNamespace?: string;
  readonly marks?: string;
  readonly environment?: readonly string[];
}

/** A request as `caller.c` writes it. */
function requestOf(words: readonly string[], wish: Wish = {}): Buffer {
  const marks = wish.marks ?? `00${'0'.repeat(words.length)}`;
  const parts = [wish.key ?? testedKey, wish.mountNamespace ?? here, marks, ...words, ...(wish.environment ?? [])];
  return Buffer.from(parts.map((part) => `${part}\0`).join(''));
}

/** A caller in JavaScript, and what it was told: texts by the kind of their messages. */
function open({ socketPath }: TestedNode, request: Uint8Array) {
  const socket = new WebSocket(`ws+unix://${socketPath}:/v1/command`);
  const told = { refused: false, taken: false, stdout: '', stderr: '', code: undefined as number | undefined };
  const order: number[] = [];
  socket.once('open', () => socket.send(request));
  socket.on('message', (data) => {
    const [kind = -1, ...rest] = messageBytes(data);
    order.push(kind);
    if (kind === 0) told.refused = true;
    else if (kind === 1) told.stdout += Buffer.from(rest).toString();
    else if (kind === 2) told.stderr += Buffer.from(rest).toString();
    else if (kind === 3) told.code = rest[0];
    else told.taken = kind === 4;
  });
  return { socket, told, order, closed: once(socket, 'close') };
}

async function call(node: TestedNode, words: readonly string[], wish: Wish = {}) {
  const { told, closed } = open(node, requestOf(words, wish));
  await closed;
  return told;
}

const untouched = { refused: false, taken: false, stdout: '', stderr: '', code: undefined };
const sayAndEnd = (run: AskedRun) => {
  run.print('first\n');
  run.print('second\n', 'stderr');
  run.tell({ event: 'finished', exitCode: 3 });
};
const isTrue = (test: () => boolean) => poll(() => Promise.resolve(test() || undefined), { everyMs: 5 });

describe('serveCommand()', () => {
  it('runs an image for its caller, with the variables of that, and returns output and exit code', async () => {
    await using node = await openServingNode(sayAndEnd, here);
    const words = ['run', '--rm', '-e', 'GREETING', 'busybox', 'echo', '$GREETING', '-x'];
    const told = await call(node, words, { environment: ['GREETING=hello=you'] });
    assert.deepEqual(told, { ...untouched, taken: true, stdout: 'first\n', stderr: 'second\n', code: 3 });
    const [request] = node.runs.map(({ messages: [text = ''] }) => JSON.parse(text));
    const { containers } = JSON.parse(request.files[0].text).spec;
    assert.equal(request.removeAtEnd, true);
    assert.deepEqual(containers[0].env, [{ name: 'GREETING', value: 'hello=you' }]);
    assert.deepEqual(containers[0].args, ['echo', '$GREETING', '-x']);
  });

  it('returns all output before the end', async () => {
    const piece = 'x'.repeat(50_000);
    await using node = await openServingNode((run) => {
      for (let count = 0; count < 100; count += 1) run.print(piece);
      run.tell({ event: 'finished', exitCode: 0 });
    }, here);
    const { stdout, code } = await call(node, ['run', 'busybox']);
    assert.deepEqual([stdout.length, code], [100 * piece.length, 0]);
  });

  it('keeps the order of output and errors, which may have the same reader', async () => {
    await using node = await openServingNode((run) => {
      for (let count = 0; count < 5; count += 1) {
        run.print('one\n');
        run.print('two\n');
        run.print('three\n', 'stderr');
      }
      run.tell({ event: 'finished', exitCode: 0 });
    }, here);
    const { order, closed } = open(node, requestOf(['run', 'busybox']));
    await closed;
    assert.deepEqual(order, [4, ...Array.from({ length: 5 }, () => [1, 1, 2]).flat(), 3]);
  });

  it('answers a wrong command line as the program does', async () => {
    await using node = await openServingNode(sayAndEnd, here);
    const { stderr, code, refused } = await call(node, ['run', '--nope', 'busybox']);
    assert.match(stderr, /^podvm: unknown option '--nope' \(Did you mean --name\?\)\n/);
    assert.deepEqual([code, refused], [2, false]);
    const named = await call(node, ['run', 'no such image']);
    assert.match(named.stderr, /^podvm: Cannot run "no such image"/);
    assert.equal(named.code, 125);
  });

  it('refuses what only the caller can do, having done nothing', async () => {
    await using node = await openServingNode(sayAndEnd, here);
    const image = ['run', 'busybox'];
    const refused: readonly (readonly [readonly string[], Wish?])[] = [
      [image, { key: 'build-2' }],
      [image, { mountNamespace: 'mnt:[2]' }],
      [image, { marks: '0001' }], // a file
      [image, { environment: ['LOGINS=1'] }],
      [image, { environment: ['PODVM_SOCKET=/elsewhere/podvm.sock'] }],
      [['run', 'pod.yaml']],
      [['run', './pod']],
      [['run', '-']],
      [['run', '-f', 'busybox']],
      ...['-i', '-t', '-it', '--no-daemon', '--dry-run', '-v=/a:/b', '-v=/a', '--env-file=/etc/hosts'].map(
        (flag) => [['run', flag, 'busybox']] as const,
      ),
      [['run', '--mount', 'type=bind,source=/etc,target=/etc', 'busybox']],
      ...['ps', 'daemon', 'setup', 'uninstall', '--root=/x', ''].map((word) => [[word, 'busybox']] as const),
      [[]],
    ];
    for (const [words, wish] of refused)
      assert.deepEqual(await call(node, words, wish), { ...untouched, refused: true }, JSON.stringify([words, wish]));
    assert.equal(node.runs.length, 0);
  });

  it('refuses bytes that are no request', async () => {
    await using node = await openServingNode(sayAndEnd, here);
    const whole = requestOf(['run', 'busybox']);
    const wrong = [
      Buffer.alloc(0),
      Buffer.from([0]),
      whole.subarray(0, -1),
      whole.subarray(0, -9),
      requestOf(['run', 'busybox'], { marks: '' }),
      requestOf(['run', 'busybox'], { marks: '0' }),
      requestOf(['run', 'busybox'], { marks: '00000000' }),
      requestOf(['run', 'busybox'], { marks: '002 0' }),
      Buffer.concat([whole, Buffer.from([0xff, 0])]),
      requestOf(['run', 'busybox', 'x'.repeat(2 ** 20)]),
      requestOf(['run', 'busybox', 'x'.repeat(8183)]),
    ];
    for (const bytes of wrong) {
      const { told, closed } = open(node, bytes);
      await closed;
      assert.deepEqual(told, { ...untouched, refused: true });
    }
    assert.equal(node.runs.length, 0);
  });

  it('passes signals on: the first terminates the pod, the second kills it', async () => {
    await using node = await openServingNode((run) => run.print('up\n'), here);
    const { socket, told, closed } = open(node, requestOf(['run', 'busybox']));
    await isTrue(() => told.stdout === 'up\n');
    socket.send(Buffer.from([2]));
    const [run] = node.runs;
    await isTrue(() => run?.messages.length === 2);
    socket.send(Buffer.from([2]));
    await isTrue(() => run?.messages.length === 3);
    assert.deepEqual(run?.messages.slice(1), ['{"command":"terminate"}', '{"command":"kill"}']);
    run?.tell({ event: 'finished', exitCode: 0 });
    await closed;
    assert.deepEqual([told.stderr, told.code], ['podvm: stopping (again to kill at once)\npodvm: killing\n', 130]);
  });

  it('ends the pod of a caller that is gone, and that of one whose output has no reader', async () => {
    for (const leave of [
      (socket: WebSocket) => socket.terminate(),
      (socket: WebSocket) => socket.send(Buffer.from([13])),
    ]) {
      await using node = await openServingNode((run) => run.print('up\n'), here);
      const { socket, told } = open(node, requestOf(['run', 'busybox']));
      await isTrue(() => told.stdout === 'up\n');
      leave(socket);
      await isTrue(() => node.runs[0]?.messages[1] === '{"command":"terminate"}');
    }
  });
});
