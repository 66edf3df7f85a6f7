import { dirname, join } from 'node:path';
import { cgroupRoot, hasCgroups2 } from '#host/cgroup/cgroup-tree.ts';
import { isThere } from '#host/file/files.ts';
import { cgroupParentOf } from '#sandbox/spec/cgroup-parent.ts';
import type { OciSpec } from './oci-spec.ts';

/**
 * Returns the cgroup of a pod, in which containerd would make that of its sandbox: a directory, or a slice of systemd
 * (`SLICE:cri-containerd:ID`). Undefined when the node has no such cgroup: a kubelet makes it, and other clients of CRI
 * leave it to the runtime.
 */
export async function podCgroupOf({ linux: { cgroupsPath } }: OciSpec): Promise<string | undefined> {
  const [slice = '', prefix] = cgroupsPath.split(':');
  const given = prefix === undefined ? dirname(cgroupsPath) : slice;
  const path = given === '.' ? undefined : cgroupParentOf('the pod', given);
  if (path === undefined) return undefined;
  const root = (await hasCgroups2()) ? cgroupRoot : join(cgroupRoot, 'memory');
  return (await isThere(join(root, path))) ? path : undefined;
}
