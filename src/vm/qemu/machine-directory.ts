import { chmod, chown, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { inside } from './jail.ts';
import { socketNames } from './command-line.ts';

const portFile = (name: string): string => `port-${name}`;

/**
 * What is where in a machine's directory. The directory is root's, and its files are opened by name only; `sockets` is
 * the one place in it where the VMM can make files, so logs and disks cannot be swapped for links, and that only until
 * it listens: before a guest has run, nothing in it is hostile.
 */
export class MachineDirectory {
  readonly path: string;
  readonly sockets: string;
  readonly consoleLog: string;
  readonly vmmLog: string;

  constructor(path: string) {
    this.path = path;
    this.sockets = join(path, 'sockets');
    this.consoleLog = join(path, 'console.log');
    this.vmmLog = join(path, 'vmm.log');
  }

  socket(name: keyof typeof socketNames): string {
    return join(this.sockets, socketNames[name]);
  }

  portSocket(name: string): string {
    return join(this.sockets, portFile(name));
  }

  /** The same as the VMM sees it. */
  insidePortSocket(name: string): string {
    return `${inside.sockets}/${portFile(name)}`;
  }

  /** Path of one of its files as the VMM sees it. */
  inside(file: string): string {
    return `${inside.machine}/${file}`;
  }

  /** Gives the VMM's user what it needs: passing through the directory, and `sockets` for itself. */
  async prepare(uid: number): Promise<void> {
    await chown(this.path, 0, uid);
    await chmod(this.path, 0o710);
    await rm(this.sockets, { recursive: true, force: true });
    await rm(this.consoleLog, { force: true });
    await mkdir(this.sockets, { mode: 0o700 });
    await chown(this.sockets, uid, uid);
  }

  /** To be called when the VMM listens: from here on it can make, replace and fill nothing on the host but its disks. */
  async close(uid: number): Promise<void> {
    await chown(this.sockets, 0, uid);
    await chmod(this.sockets, 0o710);
  }

  /** Removes what only a living VMM needs; the logs stay for whoever asks why it ended. */
  async sweep(): Promise<void> {
    await rm(this.sockets, { recursive: true, force: true });
  }
}
