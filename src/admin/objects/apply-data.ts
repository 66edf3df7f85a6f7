import { isDeepStrictEqual } from 'node:util';
import { messageOf, PodvmError } from '#base/errors.ts';
import type { ConfigMap, Secret } from '#pod/schema/objects.ts';
import type { RunEvent } from '#api/run.ts';
import type { LivePod } from '../pods/known-pod.ts';
import type { NodePods } from '../pods/node-pods.ts';
import { plain, referred } from '../record/same-pod.ts';

type Data = ConfigMap | Secret;

interface DataParts {
  readonly manifest: { readonly configMaps: readonly ConfigMap[]; readonly secrets: readonly Secret[] };
  readonly pods: NodePods;
  readonly say: (event: RunEvent) => Promise<void>;
  readonly signal: AbortSignal;
}

/**
 * Gives running pods the ConfigMaps and Secrets of the files that they name and that have changed, as a cluster does: the
 * files in their volumes change, their variables do not until their containers start again.
 */
export async function applyData({ manifest, pods, say, signal }: DataParts): Promise<void> {
  const configured = new Set<string>();
  for (const live of pods.live()) {
    const configMaps = changedIn(live, live.source.configMaps, manifest.configMaps);
    const secrets = live.hasLostSecrets ? [] : changedIn(live, live.source.secrets, manifest.secrets);
    const changed = [...configMaps, ...secrets];
    if (changed.length === 0) continue;
    try {
      const data = {
        configMaps: merged(live.source.configMaps, manifest.configMaps),
        secrets: merged(live.source.secrets, manifest.secrets),
      };
      await pods.changeData(live, data, signal);
      for (const { kind, metadata } of changed) configured.add(`${kind} ${metadata.namespace}/${metadata.name}`);
    } catch (error) {
      const fix = error instanceof PodvmError ? error.fix : undefined;
      const todo = fix ?? `Apply the files again; \`podvm doctor ${live.namespace}/${live.name}\` examines the pod.`;
      const message = `${live.namespace}/${live.name} keeps its files: ${messageOf(error)}. ${todo}`;
      await say({ event: 'warning', message });
    }
  }
  for (const object of configured) await say({ event: 'object', object, change: 'configured' });
}

/** The objects that the pod names and whose content differs from what it was given. */
function changedIn<T extends Data>({ source }: LivePod, before: readonly T[], given: readonly T[]): readonly T[] {
  const known = referred(source, before);
  return referred(source, given).filter((object) => {
    const old = known.find((it) => it.metadata.name === object.metadata.name);
    return old !== undefined && !isDeepStrictEqual(plain(old), plain(object));
  });
}

/** The objects with those of the same names replaced, and with further ones. */
function merged<T extends Data>(before: readonly T[], given: readonly T[]): readonly T[] {
  const isGiven = ({ metadata: { namespace, name } }: T) =>
    given.some(({ metadata }) => metadata.namespace === namespace && metadata.name === name);
  return [...before.filter((object) => !isGiven(object)), ...given];
}
