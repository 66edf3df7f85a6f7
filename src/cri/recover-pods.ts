import { create } from '@bufbuild/protobuf';
import { removeUnknown } from '#sandbox/adoption/remove-unknown.ts';
import type { Sandbox } from '#sandbox/sandbox.ts';
import { knowContainer, knowPod } from './know.ts';
import type { CriParts } from './parts.ts';
import type { PodRecord } from './pod-records.ts';
import { PodSandboxConfigSchema } from './schema/api_pb.ts';

type RecoverParts = Pick<CriParts, 'sandboxes' | 'pods' | 'events' | 'log'>;

/**
 * Restores the pods and containers whose ids clients know from an earlier process. Others are removed: their clients
 * request them again. Nothing of a sandbox that is left alone is removed, since its record may be one of a newer podvm.
 */
export async function recoverPods(parts: RecoverParts, records: ReadonlyMap<string, PodRecord>): Promise<void> {
  const { sandboxes, pods, log } = parts;
  const kept = sandboxes.list().filter(({ spec }) => spec.isKept === true && (spec.keptFor ?? 'cri') === 'cri');
  for (const sandbox of kept) {
    const isLeft = sandbox.status.leftAlone !== undefined;
    const record = records.get(sandbox.id) ?? (isLeft ? recordOf(sandbox) : undefined);
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
        if (!isLeft) await removeUnknown(container, log);
        continue;
      }
      await pods.addContainer(knowContainer(parts, pod, container, known));
      if (state === 'exited') await container.exited;
    }
  }
  const ids = new Set(kept.map(({ id }) => id));
  for (const id of records.keys()) if (!ids.has(id)) await pods.forget(id);
}

/** What the sandbox itself tells of its client's configuration. */
const recordOf = ({ spec: { name, namespace, uid, attempt = 0, labels, annotations } }: Sandbox): PodRecord => ({
  config: create(PodSandboxConfigSchema, { metadata: { name, namespace, uid, attempt }, labels, annotations }),
  runtimeHandler: '',
  containers: new Map(),
});
