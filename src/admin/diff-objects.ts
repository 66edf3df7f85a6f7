import { stringify } from 'yaml';
import type { PodSource } from './ended-record.ts';
import { type ObjectsParts, groupsOf, livePodsOf, sourceOf } from './apply.ts';
import { configMapsOf, isSameSource, shownPod } from './same-pod.ts';

/** Tells what `apply` would change. Returns 1 if that is something, as kubectl does. */
export async function diffObjects(parts: ObjectsParts): Promise<number> {
  const { manifest, pods, say } = parts;
  let code = 0;
  for (const group of groupsOf(manifest)) {
    const live = livePodsOf(group, pods);
    const names = new Set([...live.map(({ name }) => name), ...group.pods.map(({ metadata }) => metadata.name)]);
    for (const name of names) {
      const running = live.find((it) => it.name === name);
      const before = running?.source ?? (await pods.endedSource(group.namespace, name));
      const wanted = group.pods.find(({ metadata }) => metadata.name === name);
      const after = wanted && sourceOf(wanted, parts);
      const ignoresSecrets = running === undefined || running.hasLostSecrets;
      if (before !== undefined && after !== undefined && isSameSource(before, after, { ignoresSecrets })) continue;
      code = 1;
      const object = `Pod ${group.namespace}/${name}`;
      await say({ event: 'differs', object, before: textOf(before), after: textOf(after) });
    }
  }
  return code;
}

/** The Pod and its ConfigMaps. Secrets are not shown: that they differ is all that is told of them. */
function textOf(source: PodSource | undefined): string {
  if (source === undefined) return '';
  const objects = [shownPod(source.pod), ...configMapsOf(source)];
  return objects.map((object) => stringify(object, { lineWidth: 0 })).join('---\n');
}
