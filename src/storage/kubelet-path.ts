import { isAbsolute, normalize } from 'node:path';

/**
 * The kind of a kubelet path that is given as a mount, derived from the directory layout only (kubelet_getters.go, and
 * each volume plugin's `GetPath`). `podDirectory` is `<root>/pods/<uid>`; the root is the kubelet's `--root-dir`.
 */
export type KubeletPath =
  /** configMap, secret, downwardAPI, projected: a tree that kubelet's atomic writer maintains. */
  | { readonly kind: 'content'; readonly podDirectory: string; readonly volume: string }
  /** A directory on disk, or a tmpfs that the kubelet mounted there. */
  | { readonly kind: 'emptyDir'; readonly podDirectory: string; readonly volume: string }
  /** The pod's /etc/hosts, one file that is overwritten in place. */
  | { readonly kind: 'etcHosts'; readonly podDirectory: string }
  /** A bind mount of a file or directory in one of the pod's volumes (pkg/volume/util/subpath). */
  | { readonly kind: 'subPath'; readonly podDirectory: string; readonly volume: string; readonly name: string };

/** Directory names of plugins whose volumes kubelet's atomic writer maintains. */
export const contentPlugins: readonly string[] = [
  'kubernetes.io~configmap',
  'kubernetes.io~secret',
  'kubernetes.io~downward-api',
  'kubernetes.io~projected',
];
export const emptyDirPlugin = 'kubernetes.io~empty-dir';

/** Names of volumes and containers are DNS labels. */
const label = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;

/**
 * Returns undefined for a path that a kubelet does not maintain for this pod. Another pod's path is an ordinary host
 * path.
 */
export function kubeletPathOf(path: string, podUid: string): KubeletPath | undefined {
  if (podUid === '' || !isAbsolute(path) || normalize(path) !== path) return undefined;
  const marker = `/pods/${podUid}/`;
  const at = path.indexOf(marker);
  if (at < 0) return undefined;
  const podDirectory = path.slice(0, at + marker.length - 1);
  const [what, ...rest] = path.slice(at + marker.length).split('/');
  if (what === 'etc-hosts' && rest.length === 0) return { kind: 'etcHosts', podDirectory };
  if (what === 'volumes' && rest.length === 2) return volumeOf(podDirectory, rest[0] ?? '', rest[1] ?? '');
  if (what !== 'volume-subpaths' || rest.length !== 3) return undefined;
  const [volume = '', container = '', index = ''] = rest;
  if (!label.test(volume) || !label.test(container) || !/^\d{1,5}$/.test(index)) return undefined;
  return { kind: 'subPath', podDirectory, volume, name: `${container}.${index}` };
}

function volumeOf(podDirectory: string, plugin: string, volume: string): KubeletPath | undefined {
  if (!label.test(volume)) return undefined;
  if (contentPlugins.includes(plugin)) return { kind: 'content', podDirectory, volume };
  return plugin === emptyDirPlugin ? { kind: 'emptyDir', podDirectory, volume } : undefined;
}
