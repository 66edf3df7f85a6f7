import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import type { MachineShape } from '../driver.ts';
import { kernelArguments, qemuArguments } from './command-line.ts';
import { inside } from './jail.ts';
import type { QemuDriverOptions } from './qemu-driver.ts';
import { TemplateStore, type TemplateFiles } from './template-store.ts';
import { hostTscKHz } from './tsc.ts';

/** The templates of one driver, by the shape of machine they are for. */
export class Templates {
  readonly #store: TemplateStore;
  readonly #options: QemuDriverOptions;

  constructor(directory: string, options: QemuDriverOptions) {
    this.#store = new TemplateStore(directory);
    this.#options = options;
  }

  async find(shape: MachineShape): Promise<string | undefined> {
    return await this.#store.find(await templateKey(this.#options, shape));
  }

  /** Templates of other kernels, agents or QEMUs go: this driver will never ask for them. */
  async publish(shape: MachineShape, files: TemplateFiles): Promise<void> {
    const key = await templateKey(this.#options, shape);
    await this.#store.publish(key, files);
    const generation = key.slice(0, key.indexOf('-'));
    await this.#store.collect((other) => other.startsWith(`${generation}-`));
  }
}

/**
 * `<generation>-<shape>`: hashes of all that decides what is in a template. The generation is that of the parts (QEMU,
 * kernel, agent, and their arguments), the shape that of the machine.
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
  return `${hashOf([parts, processor, kernelWords])}-${hashOf(arguments_)}`;
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

function hashOf(value: unknown): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('hex').slice(0, 16);
}
