import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import type { MachineShape } from '../driver.ts';
import { kernelArguments, qemuArguments } from './command-line.ts';
import { inside } from './jail.ts';
import type { QemuDriverOptions } from './driver-options.ts';
import { TemplateStore, type TemplateFiles } from './template-store.ts';
import { hostTscKHz } from './tsc.ts';

/** Templates of tenants that a node keeps. On disk each was 410 MB with 12 GiB of nominal memory. */
export const maxTenantTemplates = 16;

/** The templates of one driver, by the shape of machine they are for. */
export class Templates {
  readonly #store: TemplateStore;
  readonly #options: QemuDriverOptions;
  /** One is published at a time: what is half made looks like what a killed process left. */
  #published: Promise<unknown> = Promise.resolve();

  constructor(directory: string, options: QemuDriverOptions) {
    this.#store = new TemplateStore(directory);
    this.#options = options;
  }

  async find(shape: MachineShape): Promise<string | undefined> {
    return await this.#store.find(await templateKey(this.#options, shape));
  }

  /**
   * Templates of other kernels, agents or QEMUs go: this driver will never ask for them. So do the oldest of tenants
   * where there are too many; what began as their copy goes on, and the next of that tenant's pods has it made anew.
   */
  async publish(shape: MachineShape, files: TemplateFiles): Promise<void> {
    const key = await templateKey(this.#options, shape);
    const publishing = this.#published.then(async () => {
      await this.#store.publish(key, files);
      const kept = keptBeside(key, await this.#store.keys());
      await this.#store.collect((other) => kept.has(other));
    });
    this.#published = publishing.catch(() => {}); // its own caller hears of it
    await publishing;
  }
}

/** What stays when `key` was just published, of all keys from the oldest on; itself, whatever a clock says. */
function keptBeside(key: string, keys: readonly string[]): ReadonlySet<string> {
  const partsOf = (other: string) => other.split('-');
  const [generation] = partsOf(key);
  const others = keys.filter((other) => other !== key && partsOf(other)[0] === generation);
  const isTenants = (other: string) => partsOf(other).length === 3;
  const room = isTenants(key) ? maxTenantTemplates - 1 : maxTenantTemplates;
  return new Set([key, ...others.filter((other) => !isTenants(other)), ...others.filter(isTenants).slice(-room)]);
}

/**
 * `<generation>-<shape>`, of a tenant's `<generation>-<shape>-<tenant>`: hashes of all that decides what is in a
 * template. The generation is that of the parts (QEMU, kernel, agent, and their arguments), the shape that of the machine.
 */
async function templateKey(options: QemuDriverOptions, shape: MachineShape): Promise<string> {
  const { sysroot, kernel, initramfs } = options.assets;
  const parts = await Promise.all([join(sysroot, inside.qemu), kernel, initramfs].map(fileIdentity));
  const processor = options.accelerator === 'kvm' ? await hostProcessor() : '';
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
  // Longer, so that no tenant finds a name that would give it another's.
  const tenant = shape.tenant === undefined ? '' : `-${hashOf(shape.tenant, 32)}`;
  return `${hashOf([parts, processor, kernelWords])}-${hashOf(arguments_)}${tenant}`;
}

/**
 * What a cold boot passes to the kernel. `rounded`: with the clock's frequency to the MHz, for the host measures it anew
 * at each of its boots, and a template is to be kept over them.
 */
export async function allKernelArguments(
  { accelerator, extraKernelArguments = [] }: QemuDriverOptions,
  frequency: 'exact' | 'rounded' = 'exact',
): Promise<string[]> {
  const exact = await hostTscKHz();
  const tscKHz = exact === undefined || frequency === 'exact' ? exact : Math.round(exact / 1000) * 1000;
  return [...kernelArguments({ accelerator, tscKHz }), ...extraKernelArguments];
}

/** With KVM a guest sees the host's processor, and does not survive waking on another one. */
async function hostProcessor(): Promise<string> {
  const text = await readFile('/proc/cpuinfo', 'latin1');
  const ofFirst = text.split('\n\n', 1)[0] ?? '';
  return ofFirst
    .split('\n')
    .filter((line) => /^(vendor_id|cpu family|model|stepping|flags|microcode)\b/.test(line))
    .join('\n');
}

async function fileIdentity(path: string): Promise<readonly string[]> {
  const { ino, size, mtimeNs } = await stat(path, { bigint: true }).catch((cause: NodeJS.ErrnoException) => {
    throw new PodvmError('failedPrecondition', `Cannot start a machine: cannot find ${path} (${cause.code})`, {
      fix: 'Run `podvm setup --upgrade`, which makes QEMU, kernel and agent anew.',
    });
  });
  return [path, String(ino), String(size), String(mtimeNs)];
}

function hashOf(value: unknown, digits = 16): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('hex').slice(0, digits);
}
