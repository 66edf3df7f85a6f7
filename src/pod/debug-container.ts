import { randomBytes } from 'node:crypto';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import type { Container, ContainerSpec, Sandbox } from '#sandbox/sandbox.ts';
import { container as containerSchema, type PodContainer } from './schema/container.ts';
import type { Pod } from './schema/objects.ts';

/** A container that is added to a running pod to look at one of its containers. */
export interface DebugWish {
  readonly image: string;
  /** Container whose processes it sees; default: the first. */
  readonly target?: string;
  /** Default: the image's. */
  readonly command: readonly string[];
  readonly tty: boolean;
  readonly stdin: boolean;
}

interface DebugParts {
  readonly pod: Pod;
  readonly sandbox: Sandbox | undefined;
  readonly specOf: (container: PodContainer) => ContainerSpec;
}

/** Names of such containers begin with this. */
const debugPrefix = 'debugger-';

/** Whether the container is none of the Pod's own. */
export const isDebugger = (name: string, { spec }: Pod): boolean =>
  name.startsWith(debugPrefix) && ![...spec.initContainers, ...spec.containers].some((own) => own.name === name);

/**
 * Makes a container beside those of the Pod, with the processes of one of them, as root of the machine with CAP_SYS_PTRACE.
 * Its caller starts and removes it. Errors: `failedPrecondition`, `invalid`, and those of `Sandbox.createContainer`.
 */
export async function createDebugger(
  { image, target, command, tty, stdin }: DebugWish,
  { pod, sandbox, specOf }: DebugParts,
  signal: AbortSignal,
): Promise<Container> {
  const { name } = pod.metadata;
  const chosen = target ?? pod.spec.containers[0]?.name ?? '';
  const followed = sandbox?.container(chosen)?.status;
  if (sandbox === undefined || followed?.state !== 'running') {
    throw new PodvmError('failedPrecondition', `Cannot debug ${name}: its container ${chosen} does not run`, {
      fix: `See \`podvm inspect ${name}\` for its containers, and choose one with --target.`,
    });
  }
  const parsed = v.safeParse(containerSchema, {
    name: `${debugPrefix}${randomBytes(3).toString('hex')}`,
    ...{ image, tty, stdin },
    securityContext: { runAsUser: 0, runAsNonRoot: false, capabilities: { add: ['SYS_PTRACE'] } },
  });
  if (!parsed.success) {
    throw new PodvmError('invalid', `Cannot debug ${name}: ${parsed.issues[0].message}`, {
      fix: 'Name an image such as busybox.',
    });
  }
  const spec: ContainerSpec = {
    ...specOf(parsed.output),
    ...(command.length === 0 ? {} : { command }), // as it was given: variables in it are not expanded
    pidNamespaceOf: followed.id,
  };
  return await sandbox.createContainer(spec, signal);
}

/** Removes such containers, which an earlier process has left. Failures are passed to `failed`. */
export function removeDebuggers(
  { pod, sandbox }: { readonly pod: Pod; readonly sandbox: Sandbox },
  failed: (error: unknown) => void,
): void {
  for (const left of sandbox.containers) {
    if (!isDebugger(left.status.name, pod)) continue;
    const signal = AbortSignal.timeout(removeMs);
    left
      .stop(0, signal)
      .then(() => left.remove(signal))
      .catch(failed);
  }
}

const removeMs = 30_000;
