import { basename } from 'node:path';
import { PodvmError } from '#base/errors.ts';

/**
 * Drivers that every guest loads at boot, in this order; the channel to the host first, so that a guest that cannot
 * load the rest can report it. Leaves out drivers that are built into the kernel.
 */
export const bootModules: readonly string[] = [
  ['virtio_ring', 'virtio', 'virtio_mmio', 'virtio_console'],
  ['virtio_scsi', 'sd_mod', 'virtio_net', 'virtio-rng'],
  // ext4 loads crc32c and the format of its quotas by name, through a modprobe that the guest does not have
  ['crc32c_generic', 'crc32c-intel', 'quota_v2', 'erofs', 'overlay', 'ext4'],
].flat();

/** Drivers that the agent loads from the initramfs when a pod needs them: volumes of the host; SCTP. */
export const demandModules: readonly string[] = ['fuse', 'sctp'];

/**
 * Directories below `/lib/modules/<version>/kernel/` with modules that a pod that administers its network may load, from a
 * disk of modules. Leaves out protocols that pods do not use, which are mostly attack surface.
 */
export const podDirectories: readonly string[] = [
  ...['8021q', '802', 'bridge', 'core', 'ipv4', 'ipv6', 'key', 'netfilter', 'netlink', 'nsh', 'openvswitch'],
  ...['packet', 'psample', 'sched', 'unix', 'xdp', 'xfrm'],
].map((name) => `net/${name}/`);

/** Names of such modules. */
export const podModules: readonly string[] = [
  ['bonding', 'dummy', 'geneve', 'ifb', 'ipvlan', 'ipvtap', 'macsec', 'macvlan', 'macvtap', 'nlmon', 'tap', 'tun'],
  ['veth', 'vrf', 'vxlan', 'wireguard'],
  ['authenc', 'authencesn', 'cbc', 'ccm', 'ctr', 'echainiv', 'gcm', 'seqiv'], // for IPsec
  ['binfmt_misc', 'loop'],
].flat();

/** A packet generator, and the kernel's own tests. */
const refusedModules: ReadonlySet<string> = new Set(['pktgen', 'selftests']);

export interface KernelModule {
  readonly name: string;
  /** Path below `/lib/modules/<version>/`, as `modules.dep` names it. */
  readonly path: string;
  readonly when: 'boot' | 'demand';
  /** Names of modules that must be loaded first, in order. */
  readonly needs: readonly string[];
}

/**
 * The wanted modules and their dependencies, each after what it needs. `modulesDep` is depmod's `modules.dep`; `builtin` is
 * the kernel's `modules.builtin`. Errors: `notFound` naming a wanted module that is in neither.
 */
export function planModules(modulesDep: string, builtin: string): readonly KernelModule[] {
  const plan = new Plan(modulesDep, builtin);
  for (const name of bootModules) plan.add(name, 'boot');
  for (const name of demandModules) plan.add(name, 'demand');
  return [...plan.modules.values()];
}

/** The modules of the disk, with all dependencies that a guest has not loaded at boot. Errors: as `planModules`. */
export function planPodModules(modulesDep: string, builtin: string): readonly KernelModule[] {
  const plan = new Plan(modulesDep, builtin);
  for (const name of bootModules) plan.add(name, 'boot');
  for (const { name, path } of plan.known) {
    const isWanted = podDirectories.some((directory) => path.startsWith(`kernel/${directory}`));
    if (isWanted && !refusedModules.has(name)) plan.add(name, 'demand');
  }
  for (const name of podModules) plan.add(name, 'demand');
  const boot = new Set([...plan.modules.values()].flatMap(({ name, when }) => (when === 'boot' ? [name] : [])));
  return [...plan.modules.values()]
    .filter(({ name }) => !boot.has(name))
    .map((module) => ({ ...module, needs: module.needs.filter((name) => !boot.has(name)) }));
}

class Plan {
  readonly modules = new Map<string, KernelModule>();
  readonly #files = new Map<string, { readonly path: string; readonly needs: readonly string[] }>();
  readonly #builtin: ReadonlySet<string>;

  constructor(modulesDep: string, builtin: string) {
    for (const line of modulesDep.split('\n')) {
      const [path, rest] = line.split(':', 2);
      if (path === undefined || rest === undefined) continue;
      // modules.dep(5): "dependencies are listed in reverse order of loading"
      this.#files.set(moduleName(path), { path, needs: rest.split(' ').filter(Boolean).map(moduleName).toReversed() });
    }
    this.#builtin = new Set(builtInNames(builtin));
  }

  get known(): readonly { readonly name: string; readonly path: string }[] {
    return [...this.#files].map(([name, { path }]) => ({ name, path }));
  }

  add(wanted: string, when: KernelModule['when']): void {
    const name = wanted.replaceAll('-', '_');
    if (this.modules.has(name)) return;
    const file = this.#files.get(name);
    if (file === undefined) {
      if (this.#builtin.has(name)) return;
      throw new PodvmError('notFound', `Cannot find kernel module ${wanted}: this kernel has no such module`);
    }
    for (const needed of file.needs) this.add(needed, when);
    this.modules.set(name, { name, when, ...file });
  }
}

/** Names in the kernel's `modules.builtin`. */
export function builtInNames(builtin: string): readonly string[] {
  return builtin.split('\n').filter(Boolean).map(moduleName);
}

/** Names of the modules in a `modules.list`, that of the initramfs or that of the disk. */
export function namesInList(list: string): readonly string[] {
  return [...list.matchAll(/^(?:boot|demand|module) (\S+) /gm)].map(([, name = '']) => name);
}

/** The kernel's name of a module: its file's, without extensions, with `_` for `-`. */
function moduleName(path: string): string {
  return basename(path)
    .replace(/\.ko(\.\w+)?$/, '')
    .replaceAll('-', '_');
}

/** The module's file below `/lib/modules` of the initramfs. */
export function moduleFile({ name, when, path }: KernelModule): string {
  return when === 'demand' && path.endsWith('.xz') ? `${name}.ko.xz` : `${name}.ko`;
}

/**
 * `modules.list` of the initramfs, in load order: `boot|demand NAME FILE NEEDS`, where FILE is below `/lib/modules` and
 * NEEDS are names joined by commas in their order, or `-`. A reader that loads the `boot` lines from the top, and the needs
 * of a `demand` line first, works without depmod. A FILE that ends in `.xz` is loaded with
 * `MODULE_INIT_COMPRESSED_FILE`.
 */
export function modulesList(modules: readonly KernelModule[]): string {
  return modules
    .map((module) => `${module.when} ${module.name} ${moduleFile(module)} ${module.needs.join(',') || '-'}\n`)
    .join('');
}

/**
 * `modules.list` of the disk of modules: a line `module NAME FILE NEEDS` for each module, and a line `alias ALIAS
 * NAMES` for each other name by which the kernel requests it. `modulesAlias` is depmod's `modules.alias`; leaves out
 * patterns, which name hardware.
 */
export function podModulesList(modules: readonly KernelModule[], modulesAlias: string): string {
  const names = new Set(modules.map(({ name }) => name));
  const aliases = new Map<string, string[]>();
  for (const line of modulesAlias.split('\n')) {
    const [word, alias = '', name = ''] = line.split(' ');
    if (word !== 'alias' || !names.has(name) || /[*?[\]]/.test(alias)) continue;
    const key = alias.replaceAll('-', '_');
    aliases.set(key, [...(aliases.get(key) ?? []), name]);
  }
  return [
    ...modules.map(
      (module) => `module ${module.name} ${basename(module.path, '.xz')} ${module.needs.join(',') || '-'}\n`,
    ),
    ...[...aliases].map(([alias, of]) => `alias ${alias} ${of.join(',')}\n`),
  ].join('');
}
