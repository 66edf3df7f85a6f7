import '#engine/globals.ts';
import { ready } from '#engine/engine.ts';
import { takeEngine } from '#engine/native.ts';
import { limits } from '#wire/limits.ts';
import { size } from './fuse.ts';
import { enterJail } from './jail.ts';
import { Request } from './message.ts';
import { FileServer } from './server.ts';
import type { FileServerEngine } from './service.ts';

/**
 * The file server of one shared volume, a program of the host. `files ROOT DESCRIPTORS WORD...` serves the directory to
 * the guest on descriptor 0, with at most DESCRIPTORS descriptors, and ends with it. Words: `mapped`: the guest may map
 * its users; `ownlocks`: its locks are its own; `propagated`: mounts of the host appear in the directory and disappear; `readonly`; `refuse=MAJOR:MINOR`: a
 * device whose files the guest may not use; `unjailed`, for tests.
 * It starts in a jail that has only the volume, and then restricts itself to the system calls listed by descriptor 5.
 */
const maxRequestBytes = size.requestHeader + size.writeRequest + limits.shareDataBytes;
const refuse = 'refuse=';

function main(engine: FileServerEngine): void {
  const [, root = '', descriptors = '', ...words] = engine.args;
  engine.onError((error) => {
    engine.print(`error: ${error instanceof Error ? `${error.message} ${error.stack ?? ''}` : String(error)}`);
    engine.exit(70); // a request without a reply would hang its caller
  });
  const refused = words.filter((word) => word.startsWith(refuse)).map((word) => word.slice(refuse.length));
  const kernelDevices = new Set(refused);
  if (words.includes('unjailed')) {
    engine.stayOutside();
    engine.takePowers(Number(descriptors));
  } else {
    enterJail(engine, { root, kernelDevices }, Number(descriptors));
  }
  engine.setNonBlocking(0, false);
  const server = new FileServer(
    engine,
    {
      root,
      kernelDevices,
      mapsUsers: words.includes('mapped'),
      propagates: words.includes('propagated'),
      isReadOnly: words.includes('readonly'),
      keepsLocksInGuest: words.includes('ownlocks'),
      dataBytes: limits.shareDataBytes,
    },
    (message, length) => send(engine, message, length),
  );
  receive(
    engine,
    (request) => server.serve(request),
    () => server.sendHeld(),
  );
}

/** Blocks until the guest has taken the message: all other work comes after it. */
function send(engine: FileServerEngine, message: Uint8Array, length: number): void {
  for (let sent = 0; sent < length;) sent += engine.write(0, message, sent, length - sent);
}

/** Calls `serve` with each request, and `served` when it has served all that have come. */
function receive(engine: FileServerEngine, serve: (request: Request) => void, served: () => void): void {
  const buffer = new Uint8Array(2 * maxRequestBytes);
  const view = new DataView(buffer.buffer);
  let [start, end] = [0, 0];
  engine.watch(0, ready.readable, () => {
    const got = engine.read(0, buffer, end);
    if (got === 0) engine.exit(0);
    end += got;
    while (end - start >= 4) {
      const length = view.getUint32(start, true);
      if (length < size.requestHeader || length > maxRequestBytes) {
        engine.print(`a request of ${length} bytes: expected ${size.requestHeader} to ${maxRequestBytes}`);
        engine.exit(65);
      }
      if (end - start < length) break;
      serve(new Request(buffer.subarray(start, start + length)));
      start += length;
    }
    served();
    buffer.copyWithin(0, start, end);
    end -= start;
    start = 0;
  });
}

main(takeEngine() as FileServerEngine); // SAFE: the program is built with these calls
