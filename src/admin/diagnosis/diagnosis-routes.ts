import { PodvmError } from '#base/errors.ts';
import type { ImageStore } from '#image/images.ts';
import type { PodStatus } from '#pod/pods.ts';
import { sendJson } from '../http.ts';
import { findKnown, findReached } from '../pods/find-pods.ts';
import type { MonitoringParts } from '../routes/monitoring-routes.ts';
import type { NodePods } from '../pods/node-pods.ts';
import type { Routes } from '../routes.ts';
import { diagnose } from './diagnose.ts';
import type { WaitingContainer } from './pull-findings.ts';

/** Calls that look for the cause of trouble. */
export function diagnosisRoutes(
  pods: NodePods,
  { versions }: Pick<MonitoringParts, 'versions'>,
  { counts }: Pick<ImageStore, 'counts'>,
  recentLog: () => string,
): Routes {
  return {
    'GET /v1/log': ({ response }) =>
      void response.writeHead(200, { 'content-type': 'text/plain; charset=utf-8' }).end(recentLog()),
    'GET /v1/pods/:namespace/:name/diagnosis': async (call) => {
      const { name, sandbox } = findReached(pods, call, 'examine');
      if (sandbox === undefined) {
        throw new PodvmError('failedPrecondition', `Cannot examine ${name}: it has no machine yet`, {
          fix: `See what it waits for with \`podvm describe ${name}\`.`,
        });
      }
      const found = findKnown(pods, call);
      const { events, waiting } =
        found.kind === 'live'
          ? { events: found.pod.events, waiting: waitingOf(found.pod.status) }
          : { events: [], waiting: [] };
      const diagnosed = { name, sandbox, events, waiting, pulling: counts.pulling, versions: await versions() };
      sendJson(call.response, 200, await diagnose(diagnosed, call.signal));
    },
  };
}

const waitingOf = ({ containers }: PodStatus): readonly WaitingContainer[] =>
  containers.filter(({ state }) => state.kind === 'waiting');
