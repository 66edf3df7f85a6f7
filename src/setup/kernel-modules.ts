import { basename } from 'node:path';
import { PodvmError } from '#base/errors.ts';

/**
 * Drivers every guest loads at boot, in this order; the channel to the host first, so that a guest that cannot load the
 * rest can still say so. What a kernel has built in is left out.
 */
export const bootModules: readonly string[] = [
  ['virtio_ring', 'virtio', 'virtio_mmio', 'virtio_console'],
  ['virtio_scsi', 'sd_mod', 'virtio_net', 'virtio-rng'],
  // ext4 asks for crc32c and for the format of its quotas by name, through a modprobe that the guest has not
  ['crc32c_generic', 'crc32c-intel', 'quota_v2', 'erofs', 'overlay', 'ext4'],
].flat();

/** Drivers a guest loads when a pod asks for what they do. */
export const demandModules: readonly string[] = [
  ['fuse'], // volumes shared with the host
  ['sctp'], // pods with a port of that protocol
  ['bridge', 'veth', 'dummy', 'tun', 'macvlan', 'ipvlan', 'vxlan', 'wireguard', 'br_netfilter'],
  ['nf_tables', 'nft_compat', 'nft_chain_nat', 'nft_ct', 'nft_nat', 'nft_masq', 'nft_redir', 'nft_limit'],
  ['nft_reject_inet', 'nft_fib_inet', 'nft_log', 'nft_hash', 'nft_numgen', 'nft_tproxy'],
  ['ip_tables', 'iptable_filter', 'iptable_nat', 'iptable_mangle', 'iptable_raw'],
  ['ip6_tables', 'ip6table_filter', 'ip6table_nat', 'ip6table_mangle', 'ip6table_raw'],
  ['xt_MASQUERADE', 'xt_REDIRECT', 'xt_TPROXY', 'xt_conntrack', 'xt_comment', 'xt_multiport', 'xt_tcpudp'],
  [
    'xt_addrtype',
    'xt_mark',
    'xt_connmark',
    'xt_owner',
    'xt_limit',
    'xt_state',
    'xt_LOG',
    'xt_nat',
    'xt_set',
    'xt_socket',
  ],
  ['ip_set', 'ip_set_hash_ip', 'ip_set_hash_net', 'ipt_REJECT', 'ip6t_REJECT'],
  ['loop', 'binfmt_misc', 'tcp_bbr', 'tcp_diag', 'udp_diag', 'unix_diag', 'sch_htb', 'sch_tbf', 'sch_ingress'],
].flat();

export interface KernelModule {
  readonly name: string;
  /** Path below `/lib/modules/<version>/`, as `modules.dep` names it. */
  readonly path: string;
  readonly when: 'boot' | 'demand';
  /** Names of modules that must be loaded before, in order. */
  readonly needs: readonly string[];
}

/**
 * The wanted modules and all they need, each after what it needs. `modulesDep` is depmod's `modules.dep`; `builtin` is
 * the kernel's `modules.builtin`. Errors: `notFound` naming a wanted module that is neither.
 */
export function planModules(modulesDep: string, builtin: string): readonly KernelModule[] {
  const files = new Map<string, { path: string; needs: readonly string[] }>();
  for (const line of modulesDep.split('\n')) {
    const [path, rest] = line.split(':', 2);
    if (path === undefined || rest === undefined) continue;
    // modules.dep(5): "dependencies are listed in reverse order of loading"
    files.set(moduleName(path), { path, needs: rest.split(' ').filter(Boolean).map(moduleName).toReversed() });
  }
  const builtinNames = new Set(builtin.split('\n').filter(Boolean).map(moduleName));
  const planned = new Map<string, KernelModule>();
  const plan = (wanted: string, when: KernelModule['when']) => {
    const name = wanted.replaceAll('-', '_');
    if (planned.has(name)) return;
    const file = files.get(name);
    if (file === undefined) {
      if (builtinNames.has(name)) return;
      throw new PodvmError('notFound', `Cannot find kernel module ${wanted}: this kernel has no such module`);
    }
    for (const needed of file.needs) plan(needed, when);
    planned.set(name, { name, when, ...file });
  };
  for (const name of bootModules) plan(name, 'boot');
  for (const name of demandModules) plan(name, 'demand');
  return [...planned.values()];
}

/** The kernel's name of a module: its file's, without endings, with `_` for `-`. */
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
 * NEEDS are names joined by commas in their order, or `-`. A reader that loads `boot` lines from the top, and for a
 * `demand` line what it needs first, needs no depmod. A FILE that ends in `.xz` is loaded with
 * `MODULE_INIT_COMPRESSED_FILE`.
 */
export function modulesList(modules: readonly KernelModule[]): string {
  return modules
    .map((module) => `${module.when} ${module.name} ${moduleFile(module)} ${module.needs.join(',') || '-'}\n`)
    .join('');
}
