import { existsSync } from 'node:fs';
import { chmod, chown, mkdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '#host/process/run.ts';
import type { BlockDevice } from '../driver.ts';
import { inside } from './jail/jail.ts';
import { socketNames } from './command-line.ts';

const sectorBytes = 512;
const joinedFile = (name: string): string => `${name}.vmdk`;
const portFile = (name: string): string => `port-${name}`;

/**
 * Layout of a machine's directory. The directory belongs to root, and its files are opened by name only. The VMM can
 * create files only in `sockets`, and only until it listens, before any guest code has run. So logs and disks cannot be
 * replaced by links.
 */
export class MachineDirectory {
  readonly path: string;
  readonly sockets: string;
  /** The one directory where device nodes work for the VMM (jail.ts). Nodes are added and removed with its disks. */
  readonly devices: string;
  readonly consoleLog: string;
  readonly vmmLog: string;

  constructor(path: string) {
    this.path = path;
    this.sockets = join(path, 'sockets');
    this.devices = join(path, 'devices');
    this.consoleLog = join(path, 'console.log');
    this.vmmLog = join(path, 'vmm.log');
  }

  socket(name: keyof typeof socketNames): string {
    return join(this.sockets, socketNames[name]);
  }

  portSocket(name: string): string {
    return join(this.sockets, portFile(name));
  }

  /** The same path as the VMM sees it. */
  insidePortSocket(name: string): string {
    return `${inside.sockets}/${portFile(name)}`;
  }

  /** Path of one of its files as the VMM sees it. */
  inside(file: string): string {
    return `${inside.machine}/${file}`;
  }

  insideDevice(name: string): string {
    return `${inside.devices}/${name}`;
  }

  /** Makes a node of the block device that only the VMM's user may open. */
  async addDevice(name: string, { major, minor }: BlockDevice, uid: number, signal: AbortSignal): Promise<void> {
    const path = join(this.devices, name);
    await rm(path, { force: true });
    await run('mknod', ['-m', '0600', path, 'b', String(major), String(minor)], { signal });
    await chown(path, uid, uid);
  }

  /** Removes a node; a missing one is not an error. */
  async removeDevice(name: string): Promise<void> {
    await rm(join(this.devices, name), { force: true });
  }

  /**
   * Describes a read-only disk of files of this directory, one behind the other. The description belongs to root, so a VMM
   * cannot name other files. Source: VMware's "Virtual Disk Format 1.1", flat extents; QEMU reads these without looking for
   * a format in them.
   */
  async addJoined(name: string, files: readonly string[]): Promise<void> {
    const extents = await Promise.all(
      files.map(async (file) => {
        const { size } = await stat(join(this.path, file));
        return `RW ${size / sectorBytes} FLAT "${file}" 0`;
      }),
    );
    const head = ['# Disk DescriptorFile', 'version=1', 'CID=fffffffe', 'parentCID=ffffffff'];
    const lines = [...head, 'createType="twoGbMaxExtentFlat"', ...extents, ''];
    await writeFile(join(this.path, joinedFile(name)), lines.join('\n'), { mode: 0o644 });
  }

  /** Removes such a description; a missing one is not an error. */
  async removeJoined(name: string): Promise<void> {
    await rm(join(this.path, joinedFile(name)), { force: true });
  }

  insideJoined(name: string): string {
    return this.inside(joinedFile(name));
  }

  /**
   * Lets the VMM's user search and list the directory, and gives it `sockets`. From version 0.12 on, bubblewrap opens a
   * directory of the jail for reading before it mounts something below it, as the jail does with `devices`.
   */
  async prepare(uid: number): Promise<void> {
    await chown(this.path, 0, uid);
    await chmod(this.path, 0o750);
    await rm(this.sockets, { recursive: true, force: true });
    await rm(this.consoleLog, { force: true });
    await mkdir(this.sockets, { mode: 0o700 });
    await chown(this.sockets, uid, uid);
    await rm(this.devices, { recursive: true, force: true });
    await mkdir(this.devices, { mode: 0o710 });
    await chown(this.devices, 0, uid);
  }

  /** Returns whether the running VMM has a console to connect to. */
  hasConsole(): boolean {
    return existsSync(this.socket('console'));
  }

  /**
   * Takes write access to `sockets` away. Call when the VMM listens; afterwards it can write only to its disks on the
   * host.
   */
  async close(uid: number): Promise<void> {
    await chown(this.sockets, 0, uid);
    await chmod(this.sockets, 0o710);
  }

  /** Removes files that only a running VMM needs. The logs stay for diagnosis. */
  async sweep(): Promise<void> {
    for (const directory of [this.sockets, this.devices]) await rm(directory, { recursive: true, force: true });
  }
}
