import { constants } from 'node:os';
import { PodvmError } from '#base/errors.ts';
import type { ImageConfig } from '#image/images.ts';
import { ambientOf } from './capabilities.ts';
import type { ContainerSpec } from './sandbox.ts';

/** What a container runs: the image's wishes with the pod's over them. */
export interface ProcessPlan {
  readonly args: string[];
  readonly env: string[];
  readonly cwd: string;
  readonly user: string;
  readonly group?: number;
  readonly requireNonRoot: boolean;
  readonly supplementalGroups: number[];
  readonly supplementalGroupsPolicy?: 'merge' | 'strict';
  readonly fsGroup?: number;
  readonly capabilities: string[];
  readonly ambientCapabilities?: string[];
  readonly noNewPrivileges: boolean;
  readonly rlimits: { type: string; soft: number; hard: number }[];
  readonly oomScoreAdj?: number;
}

/** systemd's and newer containerd's default: `select` works for whoever never asks for more, the others may. */
const openFiles = { type: 'RLIMIT_NOFILE', soft: 1024, hard: 524_288 };

/** Errors: `invalid` when neither pod nor image name a command, and for root where runAsNonRoot is set. */
export function processOf(
  spec: ContainerSpec,
  image: ImageConfig,
  capabilities: readonly string[],
  fsGroup: number | undefined,
): ProcessPlan {
  const { security } = spec;
  const ambient = ambientOf(security, capabilities);
  const user = security.runAsUser?.toString() ?? security.runAsUserName ?? image.user ?? '';
  if (security.runAsNonRoot && ['', '0', 'root'].includes(user.split(':')[0] ?? '')) {
    // A name that only the image can resolve is checked in the guest.
    throw new PodvmError(
      'invalid',
      `Cannot run container ${spec.name}: runAsNonRoot is set, and it would run as root`,
      {
        fix: 'Set securityContext.runAsUser to another user.',
      },
    );
  }
  return {
    args: argsOf(spec, image),
    env: envOf(spec, image),
    cwd: spec.workingDir ?? (image.workingDir === undefined || image.workingDir === '' ? '/' : image.workingDir),
    user,
    ...(security.runAsGroup === undefined ? {} : { group: security.runAsGroup }),
    requireNonRoot: security.runAsNonRoot,
    supplementalGroups: [...security.supplementalGroups],
    ...(security.supplementalGroupsPolicy === 'strict' ? { supplementalGroupsPolicy: 'strict' } : {}),
    ...(fsGroup === undefined ? {} : { fsGroup }),
    capabilities: [...capabilities],
    ...(ambient.length === 0 ? {} : { ambientCapabilities: [...ambient] }),
    noNewPrivileges: !security.allowPrivilegeEscalation && !security.privileged,
    rlimits: [openFiles],
    ...(spec.oomScoreAdj === undefined ? {} : { oomScoreAdj: spec.oomScoreAdj }),
  };
}

/** Kubernetes' table: a command drops the image's arguments too, arguments alone replace only those. */
function argsOf(spec: ContainerSpec, image: ImageConfig): string[] {
  const command = spec.command ?? image.entrypoint ?? [];
  const args = spec.args ?? (spec.command === undefined ? (image.cmd ?? []) : []);
  const all = [...command, ...args];
  if (all.length > 0 && all[0] !== '') return all;
  throw new PodvmError('invalid', `Cannot run container ${spec.name}: neither the pod nor the image names a command`, {
    fix: 'Give the container a command.',
  });
}

function envOf(spec: ContainerSpec, image: ImageConfig): string[] {
  const byName = new Map<string, string>();
  for (const pair of image.env ?? []) {
    const at = pair.indexOf('=');
    if (at > 0) byName.set(pair.slice(0, at), pair.slice(at + 1));
  }
  for (const { name, value } of spec.env) byName.set(name, value);
  return [...byName].map(([name, value]) => `${name}=${value}`);
}

const realTimeBase = 34; // SIGRTMIN as C libraries have it: two of the kernel's are theirs

/** Number of an image's StopSignal: `SIGQUIT`, `QUIT`, `3`, `SIGRTMIN+3`; SIGTERM when absent or not understood. */
export function stopSignalOf(image: ImageConfig): number {
  const text = (image.stopSignal ?? '').toUpperCase();
  const number = /^[0-9]{1,2}$/.test(text) ? Number(text) : undefined;
  if (number !== undefined && number >= 1 && number <= 64) return number;
  const realTime = /^(?:SIG)?RTMIN(?:\+([0-9]{1,2}))?$/.exec(text);
  if (realTime !== null) return Math.min(64, realTimeBase + Number(realTime[1] ?? 0));
  const name = text.startsWith('SIG') ? text : `SIG${text}`;
  return new Map<string, number>(Object.entries(constants.signals)).get(name) ?? constants.signals.SIGTERM;
}
