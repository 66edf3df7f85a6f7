import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FrameParser, frameKinds, headerBytes } from '#wire/frame.ts';
import { limits } from '#wire/limits.ts';
import { AgentStream } from '../channel/stream.ts';
import { OutputPump, type OutputParts, outputUser } from './pumps.ts';
import { SentOutput } from './sent-output.ts';

const unused = () => assert.fail('not used here');

/** A process that has written `output` and ended, and the pump that reads it, in pieces of at most `pieceBytes`. */
function writing(output: Uint8Array, pieceBytes = Infinity) {
  let at = 0;
  const state: { isClosed: boolean; read?: (() => void) | undefined; nowMs: number } = { isClosed: false, nowMs: 0 };
  const parts: OutputParts = {
    monotonicMs: () => (state.nowMs += 10), // a process that pauses before each piece
    setTimer: unused,
    open: unused,
    duplicate: unused,
    pipe: unused,
    write: unused,
    setNonBlocking: unused,
    close: () => void (state.isClosed = true),
    watch: (_fd, _interest, handler) => void (state.read = () => handler(1)),
    unwatch: () => void (state.read = undefined),
    read: (_fd, into, offset = 0, length = into.length - offset) => {
      const piece = output.subarray(at, at + Math.min(length, pieceBytes));
      into.set(piece, offset);
      at += piece.length;
      return piece.length;
    },
  } as Partial<OutputParts> as OutputParts; // SAFE: all methods that an output pump uses
  const pump = new OutputPump(parts, 3, () => {}, { sent: new SentOutput() });
  return {
    pump,
    isClosed: () => state.isClosed,
    /** Runs the pump until it has to wait. */
    run() {
      while (state.read !== undefined && !state.isClosed) state.read();
    },
  };
}

/**
 * A process that writes `pieceBytes` every `everyMs` into a pipe of 256 KiB, or a terminal of 4 KiB, and its pump, in a time of
 * its own in which a read takes 0.1 ms. Returns the times and sizes of the frames until it has written `bytes`.
 */
function flowing(bytes: number, pieceBytes: number, everyMs: number, into: 'pipe' | 'terminal' = 'pipe') {
  const heldBytes = into === 'pipe' ? 256 * 1024 : 4096;
  const frames: { readonly atMs: number; readonly bytes: number }[] = [];
  let [nowMs, written, read] = [0, 0, 0];
  const state: { isClosed: boolean; read?: (() => void) | undefined } = { isClosed: false };
  let timers: { readonly atMs: number; readonly handler: () => void }[] = [];
  const inPipe = () => {
    written = Math.min(bytes, pieceBytes * (Math.floor(nowMs / everyMs) + 1), read + heldBytes);
    return written - read;
  };
  const parts = {
    monotonicMs: () => nowMs,
    setTimer: (delayMs: number, handler: () => void) => timers.push({ atMs: nowMs + delayMs, handler }),
    close: () => void (state.isClosed = true),
    watch: (_fd: number, _interest: number, handler: (events: number) => void) => void (state.read = () => handler(1)),
    unwatch: () => void (state.read = undefined),
    read: (_fd: number, _into: Uint8Array, _offset: number, length: number) => {
      const piece = Math.min(length, inPipe());
      nowMs += 0.1;
      read += piece;
      return piece;
    },
  } as Partial<OutputParts> as OutputParts; // SAFE: all methods that an output pump uses
  const pump = new OutputPump(parts, 3, () => {}, { gathers: into === 'pipe' });
  const port = { epoch: 1, isCongested: false, maxDataBytes: limits.maxOutputBytes, forget: () => {} };
  const stream: AgentStream = new AgentStream(1, {
    ...port,
    write: (_frame, length) => {
      frames.push({ atMs: nowMs, bytes: length - headerBytes });
      if (length > headerBytes) stream.granted(length - headerBytes);
    },
  });
  stream.use(outputUser(pump, stream));
  pump.attach(stream);
  while (!state.isClosed) {
    const due = timers.filter(({ atMs }) => atMs <= nowMs);
    timers = timers.filter(({ atMs }) => atMs > nowMs);
    for (const { handler } of due) handler();
    if (state.read !== undefined && (inPipe() > 0 || written === bytes)) state.read();
    else nowMs += 0.05;
  }
  return { frames: frames.filter((frame) => frame.bytes > 0), endMs: nowMs };
}

test('a process that writes small pieces quickly is read in large ones', () => {
  const { frames, endMs } = flowing(4_000_000, 4096, 0.2);
  assert.equal(
    frames.reduce((sum, frame) => sum + frame.bytes, 0),
    4_000_000,
  );
  const average = 4_000_000 / frames.length;
  assert.ok(average > 8192, `${average} bytes in a frame`); // 4096 when each piece is read at once
  assert.ok(endMs < 1.1 * (4_000_000 / 4096) * 0.2, `it waited: ${endMs} ms`);
});

test('a process that writes as fast as its pipe takes it is not slowed down', () => {
  const { frames, endMs } = flowing(16_000_000, 65_536, 0.01);
  assert.ok(frames.length <= 16_000_000 / limits.maxOutputBytes + 2, `${frames.length} frames`);
  assert.ok(endMs < 1.1 * frames.length * 0.1, `it waited: ${endMs} ms`);
});

test('a process that writes small pieces all the time is read once in a while, not twice', () => {
  const { frames } = flowing(4_000_000, 4096, 0.1); // 40 KB in a millisecond
  const average = 4_000_000 / frames.length;
  assert.ok(average > 40_000, `${average} bytes in a frame`); // half of that if every second piece is read at once
});

test('a terminal, which holds little, is read at once', () => {
  const { frames, endMs } = flowing(4_000_000, 4096, 0.01, 'terminal');
  assert.ok(endMs < 1.6 * frames.length * 0.1, `it waited: ${endMs} ms`); // six times as long when pieces are gathered
});

test('lines with pauses between them are passed at once, and so are the first line and the end', () => {
  const { frames, endMs } = flowing(1000, 100, 2);
  assert.deepEqual(
    frames.map(({ atMs }) => Math.floor(atMs / 2)),
    Array.from({ length: 10 }, (_, at) => at),
  );
  assert.ok(endMs < 18.5, `${endMs} ms`);
});

test('a line of one output is passed after what the same process has written to the other before', () => {
  const pipes = [
    ['a', 'b', 'c'],
    ['E', 'F'],
  ];
  const read = new Map<number, () => void>();
  const timers = new Map<number, () => void>();
  const parts = {
    monotonicMs: () => 0,
    setTimer: (_delayMs: number, handler: () => void) => {
      timers.set(timers.size, handler);
      return timers.size - 1;
    },
    clearTimer: (timer: number) => void timers.delete(timer),
    watch: (fd: number, _interest: number, handler: (events: number) => void) => void read.set(fd, () => handler(1)),
    unwatch: (fd: number) => void read.delete(fd),
    read: (fd: number, into: Uint8Array, offset: number) => {
      into.set(Buffer.from(pipes[fd]?.shift() ?? assert.fail('nothing is to be read')), offset);
      return 1;
    },
  } as Partial<OutputParts> as OutputParts; // SAFE: all methods that an output pump uses
  let passed = '';
  const pumps = [0, 1].map((fd) => {
    const pump = new OutputPump(parts, fd);
    const stream: AgentStream = new AgentStream(fd + 1, {
      ...{ epoch: 1, isCongested: false, maxDataBytes: limits.maxOutputBytes, forget: () => {} },
      write: (frame, length) => void (passed += Buffer.from(frame.subarray(headerBytes, length)).toString()),
    });
    stream.use(outputUser(pump, stream));
    pump.attach(stream);
    return pump;
  });
  const [stdout, stderr] = pumps;
  assert.ok(stdout !== undefined && stderr !== undefined);
  stdout.setBeside(stderr);
  stderr.setBeside(stdout);
  read.get(0)?.();
  read.get(0)?.();
  assert.deepEqual([passed, read.has(0)], ['ab', false]); // it waits
  read.get(1)?.();
  assert.equal(passed, 'abcE');
  assert.deepEqual([timers.size, read.has(0)], [1, false]); // `c` was another small piece
});

/** A host that takes everything sent to it on one stream. */
function host(pump: OutputPump) {
  const received: Buffer[] = [];
  let hasEnded = false;
  const parser = new FrameParser({
    decide: () => 'take',
    frame: ({ kind }, payload) => {
      if (kind === frameKinds.data) received.push(Buffer.from(payload));
      if (kind === frameKinds.end) hasEnded = true;
    },
  });
  const stream = new AgentStream(1, {
    epoch: 1,
    isCongested: false,
    maxDataBytes: limits.maxDataBytes,
    write: (frame, length) => parser.push(frame.slice(0, length)),
    forget: () => {},
  });
  stream.use(outputUser(pump, stream));
  return { stream, text: () => Buffer.concat(received), hasEnded: () => hasEnded };
}

const output = Buffer.from(Array.from({ length: 400_000 }, (_, n) => n % 251));

test('a host that takes over receives what the previous one had not acknowledged, then the rest and the end', () => {
  const process = writing(output);
  const first = host(process.pump);
  process.pump.attach(first.stream);
  process.run();
  assert.equal(first.text().length, limits.streamWindowBytes);
  first.stream.granted(50_000);
  process.run();
  const had = 60_000; // more than it has acknowledged
  first.stream.lost('away');

  const second = host(process.pump);
  process.pump.attach(second.stream, had);
  while (!second.hasEnded()) {
    process.run();
    second.stream.granted(limits.streamWindowBytes / 2);
  }
  assert.ok(Buffer.concat([output.subarray(0, had), second.text()]).equals(output));
});

test('the last output of a process is sent again after its end', () => {
  const process = writing(output.subarray(0, 1000));
  const first = host(process.pump);
  process.pump.attach(first.stream);
  process.run();
  assert.ok(process.isClosed() && first.hasEnded());

  const second = host(process.pump);
  process.pump.attach(second.stream, 400);
  assert.ok(second.text().equals(output.subarray(400, 1000)));
  assert.ok(second.hasEnded());
});

/** Sizes of the frames that are sent at once to a host that takes over. */
function framesSentAgain(pump: OutputPump): readonly number[] {
  const frames: number[] = [];
  const stream = new AgentStream(2, {
    epoch: 2,
    isCongested: false,
    maxDataBytes: limits.maxDataBytes,
    write: (_frame, length) => frames.push(length),
    forget: () => {},
  });
  stream.use(outputUser(pump, stream));
  pump.attach(stream, 0);
  return frames;
}

test('a repeated frame is no larger than others', () => {
  const process = writing(output);
  const first = host(process.pump);
  process.pump.attach(first.stream);
  process.run();
  first.stream.lost('away');
  const frames = framesSentAgain(process.pump);
  assert.ok(frames.length > 1);
  assert.ok(frames.every((length) => length <= headerBytes + limits.maxDataBytes));
});

test('lines that were sent one by one are repeated together', () => {
  const process = writing(output.subarray(0, 5000), 10);
  const first = host(process.pump);
  process.pump.attach(first.stream);
  process.run();
  assert.deepEqual(framesSentAgain(process.pump), [headerBytes + 5000, headerBytes]);
});

test('a closed container repeats nothing', () => {
  const process = writing(output);
  const first = host(process.pump);
  process.pump.attach(first.stream);
  process.run();
  process.pump.close();
  assert.ok(first.hasEnded());
});
