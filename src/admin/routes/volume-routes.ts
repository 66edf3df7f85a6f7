import type { VolumeSummary } from '#api/volumes.ts';
import { PodvmError } from '#base/errors.ts';
import { claimsOf } from '#pod/spec/claims.ts';
import type { NamedVolume, NamedVolumes } from '#storage/named-volumes.ts';
import { sendJson } from '../http.ts';
import type { NodePods } from '../pods/node-pods.ts';
import type { Asked, Routes } from '../routes.ts';

/** Calls on named volumes. */
export function volumeRoutes(volumes: NamedVolumes, pods: Pick<NodePods, 'live'>): Routes {
  const usersOf = (namespace: string, name: string): string[] =>
    pods
      .live()
      .filter(({ pod }) => pod.namespace === namespace && claimsOf(pod.pod.spec).includes(name))
      .map(({ pod }) => pod.name);
  const summaryOf = ({ createdAt, ...volume }: NamedVolume): VolumeSummary => ({
    ...volume,
    createdAt: createdAt.toISOString(),
    pods: usersOf(volume.namespace, volume.name),
  });
  return {
    'GET /v1/volumes': async ({ response }) => sendJson(response, 200, (await volumes.list()).map(summaryOf)),
    'GET /v1/volumes/:namespace/:name': async (call) =>
      sendJson(call.response, 200, summaryOf(await volumes.get(...nameOf(call)))),
    'DELETE /v1/volumes/:namespace/:name': async (call) => {
      const [namespace, name] = nameOf(call);
      const [user] = usersOf(namespace, name);
      if (user !== undefined) {
        throw new PodvmError('busy', `Cannot remove the volume ${namespace}/${name}: pod ${user} has it`, {
          fix: `Stop the pod first: \`podvm stop ${namespace}/${user}\`.`,
        });
      }
      sendJson(call.response, 200, summaryOf(await volumes.remove(namespace, name)));
    },
  };
}

const nameOf = ({ segment }: Asked): [namespace: string, name: string] => [segment('namespace'), segment('name')];
