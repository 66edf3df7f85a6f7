import { createServer, type Socket } from 'node:net';
import { workerData } from 'node:worker_threads';
import { encodeFrame, FrameParser, frameKinds } from '#wire/frame.ts';
import { exampleWelcome } from './scripted-agent.ts';

/** For a test, in a thread of its own: agents on the socket that it is given, which greet, and then tell of things without end. */
const message = (body: unknown) => Buffer.from(JSON.stringify(body));
const event = message({ t: 'event', event: { kind: 'oomKilled', containerId: 'flood' } });

createServer((socket) => {
  socket.on('error', () => {});
  let isGreeted = false;
  const parser = new FrameParser({
    decide: () => 'take',
    frame: ({ kind, epoch }) => {
      if (kind !== frameKinds.hello || isGreeted) return;
      isGreeted = true;
      socket.write(encodeFrame(epoch, 0, frameKinds.message, message(exampleWelcome)));
      const frame = encodeFrame(epoch, 0, frameKinds.message, event);
      flood(socket, Buffer.concat(Array.from({ length: 500 }, () => frame)));
    },
  });
  socket.on('data', (chunk: Buffer) => parser.push(chunk));
}).listen(workerData as string); // SAFE: the test's path

function flood(socket: Socket, frames: Buffer): void {
  while (!socket.destroyed && socket.write(frames));
  socket.once('drain', () => flood(socket, frames));
}
