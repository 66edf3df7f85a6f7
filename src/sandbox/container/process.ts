import { constants } from 'node:os';
import { PodvmError } from '#base/errors.ts';
import type { ImageConfig } from '#image/images.ts';
import { printable } from '#base/guest-text.ts';
import { ambientOf } from './capabilities.ts';
import { createProcessRoom } from './process-size.ts';
import type { ContainerSpec } from '../sandbox.ts';

/** The process of a container: the image's settings, overridden by the pod's. */
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

/** Same as under other runtimes, whose services have no limit: the kernel's own (fs.nr_open). */
const openFiles = { type: 'RLIMIT_NOFILE', soft: 1_048_576, hard: 1_048_576 };

/**
 * Errors: `invalid` when neither pod nor image name a command, for root with runAsNonRoot, and for arguments, variables, a
 * directory or a user that the kernel or the guest does not accept.
 */
export function processOf(
  spec: ContainerSpec,
  image: ImageConfig,
  capabilities: readonly string[],
  fsGroup: number | undefined,
): ProcessPlan {
  const { security } = spec;
  const ambient = ambientOf(security, capabilities);
  const what = `container ${spec.name}`;
  const user = security.runAsUser?.toString() ?? security.runAsUserName ?? image.user ?? '';
  const args = argsOf(spec, image);
  const variables = variablesOf(spec, image);
  const room = createProcessRoom(what);
  for (const [name, value] of variables) room.takeVariable(name, value);
  for (const [at, argument] of args.entries()) room.take(`argument ${at}`, argument);
  if (user.length > maxUserChars) {
    throw new PodvmError(
      'invalid',
      `Cannot run ${what}: the name of its user must have at most ${maxUserChars} characters, got ${user.length}`,
      { fix: 'Set securityContext.runAsUser to a number.' },
    );
  }
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
    args,
    env: [...variables].map(([name, value]) => `${name}=${value}`),
    cwd: directoryOf(what, spec, image),
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

/**
 * Kubernetes' table: a command also drops the image's arguments, arguments alone only replace those. An empty list counts
 * as absent (Go's slices and protobuf's lists do not differ), and so does an image's ENTRYPOINT [""], with which
 * Dockerfiles remove one (containerd's WithProcessArgs).
 */
function argsOf(spec: ContainerSpec, image: ImageConfig): string[] {
  const command = listOf(spec.command) ?? [];
  const entrypoint = image.entrypoint?.length === 1 && image.entrypoint[0] === '' ? [] : (image.entrypoint ?? []);
  const args = listOf(spec.args) ?? (command.length === 0 ? (image.cmd ?? []) : []);
  const all = [...(command.length === 0 ? entrypoint : command), ...args];
  if (all.length > 0 && all[0] !== '') return all;
  const why =
    all.length === 0 ? 'neither the pod nor the image names a command' : 'its command begins with an empty word';
  throw new PodvmError('invalid', `Cannot run container ${spec.name}: ${why}`, {
    fix: 'Give the container a command.',
  });
}

const listOf = (words: readonly string[] | undefined) => (words?.length === 0 ? undefined : words);

/** Limits of the image's user and directory, which come from files that users write. */
const maxUserChars = 256;
const maxPathChars = 4096;

function directoryOf(what: string, spec: ContainerSpec, image: ImageConfig): string {
  const path = spec.workingDir || image.workingDir || '/';
  if (path.startsWith('/') && path.length <= maxPathChars && !path.includes('\0')) return path;
  throw new PodvmError(
    'invalid',
    `Cannot run ${what}: its working directory must be an absolute path of at most ${maxPathChars} characters, ` +
      `got ${printable(JSON.stringify(path), 80)}`,
    { fix: 'Set workingDir in the pod, or WORKDIR in the image.' },
  );
}

function variablesOf(spec: ContainerSpec, image: ImageConfig): ReadonlyMap<string, string> {
  const byName = new Map<string, string>();
  for (const pair of image.env ?? []) {
    const at = pair.indexOf('=');
    if (at > 0) byName.set(pair.slice(0, at), pair.slice(at + 1));
  }
  for (const { name, value } of spec.env) byName.set(name, value);
  return byName;
}

/** Of C libraries, which reserve the kernel's first two. */
const realTimeSignals = { first: 34, last: 64 };

/** Number of an image's StopSignal: `SIGQUIT`, `QUIT`, `3`, `SIGRTMIN+3`, `RTMAX-1`; SIGTERM when absent or unknown. */
export function stopSignalOf(image: ImageConfig): number {
  const text = (image.stopSignal ?? '').toUpperCase();
  const number = /^[0-9]{1,2}$/.test(text) ? Number(text) : undefined;
  if (number !== undefined && number >= 1 && number <= 64) return number;
  const { first, last } = realTimeSignals;
  const [, end, steps = 0] = /^(?:SIG)?RT(MIN(?=\+|$)|MAX(?=-|$))(?:[+-]([0-9]{1,2}))?$/.exec(text) ?? [];
  if (end === 'MIN') return Math.min(last, first + Number(steps));
  if (end === 'MAX') return Math.max(first, last - Number(steps));
  const name = text.startsWith('SIG') ? text : `SIG${text}`;
  return new Map<string, number>(Object.entries(constants.signals)).get(name) ?? constants.signals.SIGTERM;
}
