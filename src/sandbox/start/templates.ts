import { PodvmError } from '#base/errors.ts';
import type { Machine, MachineShape } from '#vm/driver.ts';
import type { SandboxLimits } from '../limits.ts';
import type { UserIds } from '../names.ts';
import type { Parts, Surroundings } from '../parts.ts';
import type { LeftOvers } from '../state/left-overs.ts';
import { makeSandboxDirectory } from '../recovery/record.ts';

export interface TemplatesContext {
  readonly root: string;
  readonly userIds: UserIds;
  readonly parts: Parts;
  readonly limits: SandboxLimits;
  readonly surroundings: Surroundings;
  readonly leftOvers: LeftOvers;
}

/** Ensures that there is a template before a machine is restored. */
export interface Templates {
  /**
   * `restore` when there is a template of that shape, made now if missing; `boot` when none can currently be made, which is
   * logged and tried again later. Errors: `cancelled`; the template is still made then, for later callers.
   */
  ensure(shape: MachineShape, signal: AbortSignal): Promise<'restore' | 'boot'>;
  /** Waits for templates being made. */
  settled(): Promise<void>;
}

/** Time after a failure in which machines boot cold, in `ms`: its cause, such as a full disk, may have passed then. */
const retryMs = 60_000;

export function createTemplates(context: TemplatesContext): Templates {
  const { parts, surroundings, limits } = context;
  const making = new Map<string, Promise<boolean>>();
  const failedAtMs = new Map<string, number>();
  const monotonicMs = () => Number(surroundings.monotonicNs() / 1_000_000n);
  const ending = new AbortController();

  const makeOnce = (shape: MachineShape): Promise<boolean> => {
    if (ending.signal.aborted) return Promise.resolve(false);
    const key = JSON.stringify(shape);
    if (monotonicMs() - (failedAtMs.get(key) ?? -Infinity) < retryMs) return Promise.resolve(false);
    const order =
      making.get(key) ??
      makeTemplate(
        context,
        shape,
        AbortSignal.any([ending.signal, AbortSignal.timeout(limits.templateTimeoutMs)]),
      ).then(
        () => {
          making.delete(key); // if it is lost, it is made again
          failedAtMs.delete(key);
          return true;
        },
        (error: unknown) => {
          making.delete(key);
          failedAtMs.set(key, monotonicMs());
          if (!ending.signal.aborted) {
            surroundings.log.error('no template: machines boot cold', error, { triedAgainAfterMs: retryMs });
          }
          return false;
        },
      );
    making.set(key, order);
    return order;
  };

  return {
    ensure: async (shape, signal) => {
      if (await parts.driver.hasTemplate(shape)) return 'restore';
      return (await unlessAborted(makeOnce(shape), signal)) ? 'restore' : 'boot';
    },
    settled: async () => {
      ending.abort(new PodvmError('cancelled', 'podvm is stopping'));
      await Promise.all(making.values());
    },
  };
}

/** Makes a machine on a network that leads nowhere, uses it once by the agent's own calls, and freezes it. */
async function makeTemplate(context: TemplatesContext, shape: MachineShape, signal: AbortSignal): Promise<void> {
  const { root, userIds, parts, limits, surroundings } = context;
  const startedNs = surroundings.monotonicNs();
  await using undo = new AsyncDisposableStack();
  const { uid } = undo.use(userIds.take());
  const id = `template-${Buffer.from(surroundings.randomBytes(6)).toString('hex')}`;
  const createdAt = new Date(surroundings.nowMs()).toISOString();
  const record = { version: 1, id, namespace: '', name: '', podUid: '', uid, createdAt } as const;
  const directory = undo.use(await makeSandboxDirectory(root, record));
  const attachment = await parts.network.prepare(
    {
      sandboxId: id,
      podName: id,
      podNamespace: '',
      podUid: '',
      mode: shape.hasNic ? 'cni' : 'none',
      hostPorts: [],
      tapOwnerUid: uid,
    },
    signal,
  );
  undo.defer(() => context.leftOvers.undo(() => attachment[Symbol.asyncDispose]()));
  const { netns, tap } = attachment;
  const exercise = async (machine: Machine) => {
    await using link = await parts.connectLink(
      {
        open: (opening) => machine.connect(opening),
        handshakeTimeoutMs: limits.bootTimeoutMs,
        callTimeoutMs: limits.callTimeoutMs,
      },
      signal,
    );
    await link.call('ping', {}, signal);
    await link.call('stats', {}, signal);
    await link.call('prepareShares', {}, signal); // otherwise the first shared volume of each pod waits half a second for it
  };
  const { memoryMiB, vcpus, tenant } = shape;
  const size = { memoryMiB, vcpus, ...(tenant === undefined ? {} : { tenant }) };
  await parts.driver.makeTemplate(
    { id, directory: directory.machinePath, ...size, uid, netns, from: 'boot', ...(tap && { tap }) },
    exercise,
    signal,
  );
  surroundings.log.info('template made', {
    ...size,
    ms: Number((surroundings.monotonicNs() - startedNs) / 1_000_000n),
  });
}

function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(new PodvmError('cancelled', 'Cannot wait for the template: cancelled'));
    signal.addEventListener('abort', abort, { once: true });
    if (signal.aborted) abort();
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}
