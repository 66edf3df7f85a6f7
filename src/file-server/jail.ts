import { holdsData, isRemote } from '#base/file-systems.ts';
import { isBelow, parseMountInfo } from '#base/mount-table.ts';
import { open as openFlag } from '#engine/constants.ts';
import type { Descriptors } from '#engine/engine.ts';
import type { Powers } from './powers.ts';
import type { NodesOptions } from './nodes.ts';

type Tree = Pick<NodesOptions, 'root' | 'kernelDevices'>;

type JailEngine = Powers & Descriptors;

/** Descriptor of the list of system calls (`storage/file-server.ts`). */
const filterFd = 5;
/** Longest mount table; that of a node with many thousands of mounts is shorter. */
const maxTextBytes = 16 * 1024 * 1024;
const pieceBytes = 64 * 1024;

/** Closes the jail before the program reads from its client. Throws. */
export function enterJail(engine: JailEngine, tree: Tree, descriptors: number): void {
  coverKernelFileSystems(engine, tree);
  const filter = readAll(engine, filterFd);
  engine.close(filterFd);
  engine.enterJail();
  engine.takePowers(descriptors);
  engine.filterCalls(filter);
}

/**
 * Covers every file system of the kernel's own that is mounted below the volume, with all mounts below it. `Nodes`
 * refuses those that the host mounts later.
 */
function coverKernelFileSystems(engine: JailEngine, { root, kernelDevices }: Tree): void {
  const table = engine.open('/proc/self/mountinfo', openFlag.readOnly);
  const bytes = readAll(engine, table);
  engine.close(table);
  const covered: string[] = [];
  for (const { point, fileSystem } of parseMountInfo(binaryText(bytes))) {
    if (isRemote(fileSystem)) continue;
    if (!isBelow(point, root) || covered.some((above) => isBelow(point, above))) continue;
    const fd = engine.openMountPoint(bytesOf(point));
    if (fd < 0) continue; // just unmounted, or hidden below another mount
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

/** Text with one character for each byte: paths are bytes. */
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
