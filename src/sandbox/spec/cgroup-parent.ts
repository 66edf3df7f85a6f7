import { posix } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';

const maxChars = 4096;

/**
 * The cgroup of a pod, relative to the root of cgroups, from its name in the format of either of the kubelet's drivers:
 * `/kubepods/burstable/pod1`, or a path or the name of a slice of systemd. Undefined for none, and for the root, which a
 * kubelet without cgroups for pods gives. Errors: `invalid`.
 */
export function cgroupParentOf(what: string, given: string): string | undefined {
  const path = given.endsWith('.slice') && !given.includes('/') ? pathOfSlice(given) : given;
  if (path === '' || posix.normalize(path) === '/') return undefined;
  const isPlain = path.startsWith('/') && posix.normalize(path) === path && !path.endsWith('/');
  if (isPlain && path.length <= maxChars && !/\p{Cc}/u.test(path)) return path.slice(1);
  throw new PodvmError(
    'invalid',
    `Cannot run ${what}: its cgroup_parent must be an absolute path without "..", or the name of a slice, got ` +
      printable(JSON.stringify(given), 80),
    { fix: 'Set cgroup_parent as a kubelet does, for example to /kubepods/burstable/pod1 or kubepods-pod1.slice.' },
  );
}

/** A slice is below those of its name's parts (systemd.slice(5)): `/a.slice/a-b.slice` for `a-b.slice`. */
function pathOfSlice(name: string): string {
  const parts = name.slice(0, -'.slice'.length).split('-');
  return parts.map((_part, at) => `/${parts.slice(0, at + 1).join('-')}.slice`).join('');
}

/**
 * Returns the OOM score of the pod's QoS class. A kubelet passes the class only in the name of the cgroup, in the
 * format of either of its drivers. A burstable pod's score comes with its containers (`Sandbox.createContainer`).
 */
export function oomScoreOf(cgroupParent = ''): { readonly oomScoreAdj?: number } {
  if (!/(^|\/)kubepods\b/.test(cgroupParent)) return {};
  if (/\bbesteffort\b/.test(cgroupParent)) return { oomScoreAdj: 1000 };
  return { oomScoreAdj: /\bburstable\b/.test(cgroupParent) ? 999 : -997 };
}
