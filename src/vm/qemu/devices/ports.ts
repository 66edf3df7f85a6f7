import { stat } from 'node:fs/promises';
import type { Duplex } from 'node:stream';
import { kindOf, messageOf, PodvmError } from '#base/errors.ts';
import { maxPorts } from '../../driver.ts';
import { openDoorway } from '../qmp/accept-one.ts';
import type { Deletions } from './deletions.ts';
import type { MachineDirectory } from '../machine-directory.ts';
import type { QmpClient } from '../qmp/qmp.ts';

const namePattern = /^[a-z0-9-]{1,20}$/;
const cleanUpTimeoutMs = 5_000;

/** The ports attached to one running machine. Devices on the virtio-serial bus can be hot-plugged. */
export class Ports {
  readonly #qmp: QmpClient;
  readonly #deletions: Deletions;
  readonly #directory: MachineDirectory;
  readonly #attached = new Set<string>();

  constructor(qmp: QmpClient, deletions: Deletions, directory: MachineDirectory) {
    this.#qmp = qmp;
    this.#deletions = deletions;
    this.#directory = directory;
  }

  async attach(name: string, signal: AbortSignal): Promise<Duplex> {
    this.#assertAttachable(name);
    this.#attached.add(name);
    let socket: Duplex | undefined;
    try {
      // QEMU connects to us: while a guest runs, its VMM cannot create a socket (`MachineDirectory.close`).
      const { gid } = await stat(this.#directory.sockets);
      await using doorway = await openDoorway(this.#directory.portSocket(name), gid);
      await this.#qmp.execute('chardev-add', connectingSocket(name, this.#directory.insidePortSocket(name)), signal);
      socket = await doorway.accept(signal);
      await this.#qmp.execute('device_add', serialPort(name), signal);
      return socket;
    } catch (cause) {
      socket?.destroy();
      await this.#remove(name, AbortSignal.timeout(cleanUpTimeoutMs)).catch(() => undefined); // the cause is thrown below
      this.#attached.delete(name);
      throw new PodvmError(kindOf(cause), `Cannot attach port ${name}: ${messageOf(cause)}`, { cause });
    }
  }

  async detach(name: string, signal: AbortSignal): Promise<void> {
    if (!this.#attached.has(name)) {
      throw new PodvmError('notFound', `Cannot detach port ${name}: no such port is attached`);
    }
    await this.#remove(name, signal);
    this.#attached.delete(name);
  }

  /** Asks QEMU which ports it has, for a machine that an earlier process started. */
  async learn(signal: AbortSignal): Promise<void> {
    const devices = await this.#qmp.execute('query-chardev', {}, signal);
    if (!Array.isArray(devices)) return;
    for (const device of devices.slice(0, 4 * maxPorts)) {
      const label: unknown = typeof device === 'object' && device !== null ? Reflect.get(device, 'label') : undefined;
      if (typeof label === 'string' && label.startsWith('port-')) this.#attached.add(label.slice('port-'.length));
    }
  }

  /** Removes a port that may be only partly attached. QEMU's refusal for a missing part is not an error. */
  async #remove(name: string, signal: AbortSignal): Promise<void> {
    const deleted = this.#deletions.of(deviceId(name), signal);
    deleted.catch(() => undefined); // awaited below if there was a device
    try {
      const wasThere = await this.#executed('device_del', deviceId(name), signal);
      if (wasThere) await deleted;
      await this.#executed('chardev-remove', chardevId(name), signal);
    } finally {
      this.#deletions.forget(deviceId(name));
    }
  }

  /** Returns false if QEMU has no such object. */
  async #executed(command: string, id: string, signal: AbortSignal): Promise<boolean> {
    try {
      await this.#qmp.execute(command, { id }, signal);
      return true;
    } catch (error) {
      if (/not found/i.test(messageOf(error))) return false;
      throw error;
    }
  }

  #assertAttachable(name: string): void {
    if (!namePattern.test(name)) throw new PodvmError('invalid', `Cannot attach port: bad name, got ${name}`);
    if (this.#attached.has(name)) {
      throw new PodvmError('alreadyExists', `Cannot attach port ${name}: a port of this name is attached`);
    }
    if (this.#attached.size >= maxPorts) {
      throw new PodvmError(
        'exhausted',
        `Cannot attach port ${name}: the machine already has the maximum of ${maxPorts} ports`,
        { fix: 'Share fewer host volumes with the pod.' },
      );
    }
  }
}

function connectingSocket(name: string, path: string): Record<string, unknown> {
  const addr = { type: 'unix', data: { path } };
  return { id: chardevId(name), backend: { type: 'socket', data: { addr, server: false } } };
}

function serialPort(name: string): Record<string, unknown> {
  return { driver: 'virtserialport', id: deviceId(name), bus: 'serial.0', chardev: chardevId(name), name };
}

function chardevId(name: string): string {
  return `port-${name}`;
}

function deviceId(name: string): string {
  return `serial-${name}`;
}
