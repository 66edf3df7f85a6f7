import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { open, readdir, readFile, stat } from 'node:fs/promises';
import { release, version } from 'node:os';
import { join } from 'node:path';
import { messageOf } from '#base/errors.ts';
import { readFileIfThere } from '#host/file/files.ts';
import { kvmDevice } from '../jail/device-nodes.ts';
import { tscKHzFrom } from './tsc.ts';

/** Files in which the host describes its processor and its KVM. */
interface KvmPlaces {
  readonly cpuInfo: string;
  readonly modules: string;
  readonly clockSource: string;
  readonly device: string;
}

const hostPlaces: KvmPlaces = {
  cpuInfo: '/proc/cpuinfo',
  modules: '/sys/module',
  clockSource: '/sys/devices/system/clocksource/clocksource0/current_clocksource',
  device: kvmDevice.path,
};

/** Properties of the host that decide whether KVM works and which processor guests see. */
export interface KvmHost {
  /** Lines of the first processor in /proc/cpuinfo, by name. */
  readonly processor: ReadonlyMap<string, string>;
  /** The processor's flags, and those of VMX, by the kernel's names. */
  readonly flags: ReadonlySet<string>;
  readonly tscKHz: number | undefined;
  readonly kernel: { readonly release: string; readonly version: string };
  /** Loaded or built-in modules of KVM, each with the parameters that are fixed once it is loaded. */
  readonly modules: ReadonlyMap<string, readonly string[]>;
  readonly clockSource: string | undefined;
  /** Reason why the device cannot be opened. */
  readonly absent: string | undefined;
}

export async function readKvmHost(places: KvmPlaces = hostPlaces): Promise<KvmHost> {
  const cpuInfo = await readFile(places.cpuInfo, 'latin1');
  const [modules, clockSource, absent] = await Promise.all([
    readModules(places.modules),
    readFileIfThere(places.clockSource),
    whyAbsent(places.device),
  ]);
  const processor = new Map(
    (cpuInfo.split('\n\n', 1)[0] ?? '').split('\n').map((line): [string, string] => {
      const [name = '', ...value] = line.split(':');
      return [name.trim(), value.join(':').trim()];
    }),
  );
  return {
    processor,
    flags: new Set(['flags', 'vmx flags'].flatMap((name) => processor.get(name)?.split(' ') ?? [])),
    tscKHz: tscKHzFrom(cpuInfo),
    kernel: { release: release(), version: version() },
    modules,
    clockSource: clockSource?.trim(),
    absent,
  };
}

/** Lines of /proc/cpuinfo that describe the processor, not its load. `bugs` decides which mitigations KVM reports. */
const processorLines = [
  'vendor_id',
  'cpu family',
  'model',
  'model name',
  'stepping',
  'microcode',
  'flags',
  'vmx flags',
  'bugs',
];

/**
 * Returns a hash of everything that decides which processor `-cpu host` shows to guests and which of its registers KVM
 * takes back: the processor, its microcode, the host's kernel, and the settings of KVM's modules. A frozen guest uses
 * the features it found when it booted, and QEMU aborts when KVM refuses a register. The TSC's frequency is rounded to
 * MHz, because the host measures it at each boot; KVM treats a difference of 250 ppm as none.
 */
export function kvmIdentity({ processor, tscKHz, kernel, modules }: KvmHost): string {
  const lines = processorLines.map((name) => processor.get(name) ?? '');
  const tscMHz = tscKHz === undefined ? 0 : Math.round(tscKHz / 1000);
  const identity = [lines, tscMHz, kernel.release, kernel.version, [...modules]];
  return createHash('sha256').update(JSON.stringify(identity)).digest('hex').slice(0, 16);
}

async function readModules(directory: string): Promise<ReadonlyMap<string, readonly string[]>> {
  const names = (await readdir(directory).catch(() => [])).filter((name) => name === 'kvm' || name.startsWith('kvm_'));
  const found = await Promise.all(
    names.sort().map(async (name): Promise<[string, readonly string[]]> => {
      return [name, await fixedParameters(join(directory, name, 'parameters'))];
    }),
  );
  return new Map(found);
}

/** Returns `name=value` of the parameters that are read-only: the others tune a running KVM, and change at any time. */
async function fixedParameters(directory: string): Promise<readonly string[]> {
  const names: string[] = await readdir(directory).catch(() => []); // a module without parameters
  const found = await Promise.all(
    names.sort().map(async (name) => {
      const path = join(directory, name);
      const { mode } = await stat(path);
      if ((mode & 0o222) !== 0) return [];
      const value = await readFile(path, 'latin1').catch(() => 'unreadable');
      return [`${name}=${value.trim()}`];
    }),
  );
  return found.flat();
}

async function whyAbsent(device: string): Promise<string | undefined> {
  try {
    const opened = await open(device, constants.O_RDWR);
    await opened.close();
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}
