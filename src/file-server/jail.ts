import { holdsData, isRemote } from '#base/file-systems.ts';
import { isBelow, parseMountInfo } from '#base/mount-table.ts';
import { open as openFlag } from '#engine/constants.ts';
import type { Descriptors } from '#engine/engine.ts';
import type { Powers } from './powers.ts';
import type { NodesOptions } from './nodes.ts';

type JailEngine = Powers & Descriptors;

/** Where the list of system calls is read from (`storage/file-server.ts`). */
const filterFd = 5;
/** A node with many thousands of mounts has less. */
const maxTextBytes = 16 * 1024 * 1024;
const pieceBytes = 64 * 1024;

/** What is left to shut of the jail when the program begins, before it hears of its client. Throws. */
export function enterJail(engine: JailEngine, tree: NodesOptions, descriptors: number): void {
  coverKernelFileSystems(engine, tree);
  const filter = readAll(engine, filterFd);
  engine.close(filterFd);
  engine.enterJail();
  engine.takePowers(descriptors);
  engine.filterCalls(filter);
}

/**
 * Of what the host has mounted below the volume, the kernel's own is covered by something empty, with all that is
 * mounted below it. What the host mounts later, where that is to be seen, is for `Nodes` to refuse.
 */
function coverKernelFileSystems(engine: JailEngine, { root, kernelDevices }: NodesOptions): void {
  const table = engine.open('/proc/self/mountinfo', openFlag.readOnly);
  const bytes = readAll(engine, table);
  engine.close(table);
  const covered: string[] = [];
  for (const { point, fileSystem } of parseMountInfo(binaryText(bytes))) {
    if (isRemote(fileSystem)) continue;
    if (!isBelow(point, root) || covered.some((above) => isBelow(point, above))) continue;
    const fd = engine.openMountPoint(bytesOf(point));
    if (fd < 0) continue; // unmounted meanwhile, or there is no way to it: it is below what is mounted over it
    const found = engine.fileSystemOf(fd);
    if (typeof found === 'number' || !holdsData(found, kernelDevices)) {
      engine.cover(fd);
      covered.push(point);
    }
    engine.close(fd);
  }
}

function readAll(engine: JailEngine, fd: number): Uint8Array {
  let bytes = new Uint8Array(pieceBytes);
  let end = 0;
  for (;;) {
    if (end === bytes.length) {
      if (end >= maxTextBytes) throw new Error(`Cannot read descriptor ${fd}: it has more than ${maxTextBytes} bytes`);
      const larger = new Uint8Array(end * 2);
      larger.set(bytes);
      bytes = larger;
    }
    const got = engine.read(fd, bytes, end);
    if (got === 0) return bytes.subarray(0, end);
    if (got < 0) throw new Error(`Cannot read descriptor ${fd}: it is not ready`);
    end += got;
  }
}

/** One character for each byte, and back: paths are bytes. */
function binaryText(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}

function bytesOf(path: string): Uint8Array {
  const bytes = new Uint8Array(path.length + 1);
  for (let at = 0; at < path.length; at += 1) bytes[at] = path.charCodeAt(at);
  return bytes;
}
