import { removeUnknown } from '#sandbox/adoption/remove-unknown.ts';
import { knowContainer, knowPod } from './know.ts';
import type { CriParts } from './parts.ts';
import type { PodRecord } from './pod-records.ts';

type RecoverParts = Pick<CriParts, 'sandboxes' | 'pods' | 'events' | 'log'>;

/**
 * Restores the pods and containers whose ids clients know from an earlier process. Others are removed: their clients
 * request them again.
 */
export async function recoverPods(parts: RecoverParts, records: ReadonlyMap<string, PodRecord>): Promise<void> {
  const { sandboxes, pods, log } = parts;
  const kept = sandboxes.list().filter(({ spec }) => spec.isKept === true && (spec.keptFor ?? 'cri') === 'cri');
  for (const sandbox of kept) {
    const record = records.get(sandbox.id);
    if (record === undefined) {
      log.warn('removing a sandbox that no client knows', { sandbox: sandbox.id });
      await sandbox.remove().catch((error: unknown) => log.error('sandbox not removed', error));
      continue;
    }
    const pod = knowPod(parts, sandbox, record.config, record.runtimeHandler);
    await pods.addPod(pod);
    for (const container of sandbox.containers) {
      const { id, state } = container.status;
      const known = record.containers.get(id);
      if (known === undefined) {
        await removeUnknown(container, log);
        continue;
      }
      await pods.addContainer(knowContainer(parts, pod, container, known));
      if (state === 'exited') await container.exited;
    }
  }
  const ids = new Set(kept.map(({ id }) => id));
  for (const id of records.keys()) if (!ids.has(id)) await pods.forget(id);
}
