import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import type { MachineShape } from '../../driver.ts';
import { kernelArguments, qemuArguments } from '../command-line.ts';
import { inside } from '../jail/jail.ts';
import { type KvmHost, kvmIdentity, readKvmHost } from '../processor/kvm-host.ts';
import type { QemuDriverOptions } from '../driver-options.ts';
import { TemplateStore, type TemplateFiles } from './template-store.ts';
import { hostTscKHz } from '../processor/tsc.ts';

/** Maximum number of tenant templates on a node. Each took 289 MB on disk with 12 GiB of nominal memory. */
export const maxTenantTemplates = 16;

/** The templates of one driver, by machine shape. */
export class Templates {
  readonly #store: TemplateStore;
  readonly #options: QemuDriverOptions;
  readonly #readHost: () => Promise<KvmHost>;
  /**
   * Read once: it takes milliseconds, and each start needs it. KVM's modules cannot be replaced while machines run, and
   * microcode is loaded at boot.
   */
  #host: Promise<string> | undefined;
  /** Serialises calls of `publish`: an unfinished template looks the same as one left by a killed process. */
  #published: Promise<unknown> = Promise.resolve();

  constructor(directory: string, options: QemuDriverOptions, readHost: () => Promise<KvmHost> = readKvmHost) {
    this.#store = new TemplateStore(directory);
    this.#options = options;
    this.#readHost = readHost;
  }

  async #keyOf(shape: MachineShape): Promise<string> {
    const isKvm = this.#options.accelerator === 'kvm';
    this.#host ??= isKvm ? this.#readHost().then(kvmIdentity) : Promise.resolve('');
    return await templateKey(this.#options, shape, await this.#host);
  }

  async find(shape: MachineShape): Promise<string | undefined> {
    return await this.#store.find(await this.#keyOf(shape));
  }

  async madeAt(shape: MachineShape): Promise<Date | undefined> {
    return await this.#store.madeAt(await this.#keyOf(shape));
  }

  /**
   * Publishes a template. Removes templates of other kernels, agents or QEMUs, which this driver never uses, and the
   * oldest tenant templates above the maximum. Machines restored from a removed one are not affected, and that tenant's
   * next pod makes it again.
   */
  async publish(shape: MachineShape, files: TemplateFiles): Promise<void> {
    const key = await this.#keyOf(shape);
    const publishing = this.#published.then(async () => {
      await this.#store.publish(key, files);
      const kept = keptBeside(key, await this.#store.keys());
      await this.#store.collect((other) => kept.has(other));
    });
    this.#published = publishing.catch(() => {}); // reported to its own caller
    await publishing;
  }
}

/**
 * Returns the keys to keep after `key` was published, given all keys from oldest to newest. Always keeps `key`, even if
 * the clock was set back.
 */
function keptBeside(key: string, keys: readonly string[]): ReadonlySet<string> {
  const partsOf = (other: string) => other.split('-');
  const [generation] = partsOf(key);
  const others = keys.filter((other) => other !== key && partsOf(other)[0] === generation);
  const isTenants = (other: string) => partsOf(other).length === 3;
  const room = isTenants(key) ? maxTenantTemplates - 1 : maxTenantTemplates;
  return new Set([key, ...others.filter((other) => !isTenants(other)), ...others.filter(isTenants).slice(-room)]);
}

/**
 * Returns the key `<generation>-<shape>`, or `<generation>-<shape>-<tenant>` for a tenant: hashes of everything that
 * determines a template's content. The generation covers the parts (QEMU, kernel, agent, and their arguments) and, with
 * KVM, the host; the shape covers those of the machine.
 */
async function templateKey(options: QemuDriverOptions, shape: MachineShape, host: string): Promise<string> {
  const { sysroot, kernel, initramfs } = options.assets;
  const parts = await Promise.all([join(sysroot, inside.qemu), kernel, initramfs].map(fileIdentity));
  const kernelWords = await allKernelArguments(options, 'rounded');
  const arguments_ = qemuArguments({
    id: 'template',
    accelerator: options.accelerator,
    memoryMiB: shape.memoryMiB,
    vcpus: shape.vcpus,
    paths: inside,
    start: { kind: 'freeze', kernelArguments: kernelWords },
    tap: shape.hasNic ? { name: 'tap', mac: '' } : undefined,
  });
  // A longer hash, so that no tenant can choose a name that collides with another's.
  const tenant = shape.tenant === undefined ? '' : `-${hashOf(shape.tenant, 32)}`;
  return `${hashOf([parts, host, kernelWords])}-${hashOf(arguments_)}${tenant}`;
}

/**
 * Returns the kernel arguments of a cold boot. `rounded` rounds the clock's frequency to MHz: the host measures it at
 * each boot, and a template must survive reboots.
 */
export async function allKernelArguments(
  { accelerator }: Pick<QemuDriverOptions, 'accelerator'>,
  frequency: 'exact' | 'rounded' = 'exact',
): Promise<string[]> {
  const exact = await hostTscKHz();
  const tscKHz = exact === undefined || frequency === 'exact' ? exact : Math.round(exact / 1000) * 1000;
  return kernelArguments({ accelerator, tscKHz });
}

async function fileIdentity(path: string): Promise<readonly string[]> {
  const { ino, size, mtimeNs } = await stat(path, { bigint: true }).catch((cause: NodeJS.ErrnoException) => {
    throw new PodvmError('failedPrecondition', `Cannot start a machine: cannot find ${path} (${cause.code})`, {
      fix: 'Run `podvm setup --upgrade`, which reinstalls QEMU, kernel and agent.',
    });
  });
  return [path, String(ino), String(size), String(mtimeNs)];
}

function hashOf(value: unknown, digits = 16): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('hex').slice(0, digits);
}
