import { hasEnded, stillRuns } from '#api/pod-actions.ts';
import {
  killRequestSchema,
  type PodOutcome,
  type PodSummary,
  renameRequestSchema,
  resizeRequestSchema,
  stopRequestSchema,
} from '#api/pods.ts';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { summaryOf } from '../pods/describe-pod.ts';
import { type EndedPod, type EndedPods, endedSummaryOf } from '../record/ended-pods.ts';
import { readJson, sendJson } from '../http.ts';
import { foreignSummary, notOurs, refused } from '../pods/foreign-pods.ts';
import { type NodePods } from '../pods/node-pods.ts';
import { type KnownPod, type LivePod, untilOver } from '../pods/known-pod.ts';
import { reached } from '../pods/reached-pod.ts';
import { chooseContainer } from '../log/pod-logs.ts';
import type { Call, Routes } from '../routes.ts';
import { findKnown } from '../pods/find-pods.ts';
import { untilStarted } from '../session/run-session.ts';

/** Calls that stop, remove, restart and rename pods. `cancelStart`: cancels the start of an ended pod, if one is due. */
export function lifeRoutes(pods: NodePods, ended: EndedPods, cancelStart: (pod: EndedPod) => Promise<void>): Routes {
  const withPod =
    (answer: (pod: KnownPod, call: Call) => Promise<PodSummary | PodOutcome>) =>
    async (call: Call): Promise<void> => {
      sendJson(call.response, 200, await answer(findKnown(pods, call), call));
    };
  const started = async (live: LivePod): Promise<PodSummary> => {
    await untilStarted(live);
    return summaryOf(live.pod);
  };
  /** Waits for the end of a pod and returns its summary with the exit code. */
  const endOf = async (live: LivePod): Promise<PodSummary> => {
    const { exitCode } = await untilOver(live);
    return { ...summaryOf(live.pod), exitCode };
  };
  const paused = (isPaused: boolean) =>
    withPod(async (pod) => {
      const verb = isPaused ? 'pause' : 'unpause';
      if (pod.kind === 'foreign') throw notOurs(pod, verb);
      if (pod.kind === 'ended') throw refused(hasEnded(pod.name, verb));
      await pod.pod.setPaused(isPaused);
      return summaryOf(pod.pod);
    });
  return {
    'POST /v1/pods/:namespace/:name/pause': paused(true),
    'POST /v1/pods/:namespace/:name/unpause': paused(false),
    'POST /v1/pods/:namespace/:name/stop': withPod(async (pod, { request }) => {
      if (pod.kind === 'foreign') {
        if (pod.sandbox.status.leftAlone === undefined) throw notOurs(pod, 'stop', 'stop');
        await pods.endLeft(pod);
        return foreignSummary(pod);
      }
      const { graceSeconds } = await readJson(request, stopRequestSchema);
      if (pod.kind === 'ended') {
        await cancelStart(pod);
        return endedSummaryOf(pod);
      }
      void pod.pod.terminate(graceSeconds);
      return await endOf(pod);
    }),
    'POST /v1/pods/:namespace/:name/kill': withPod(async (pod, { request, signal }) => {
      if (pod.kind === 'foreign') throw notOurs(pod, 'send a signal to', 'stop');
      const wish = await readJson(request, killRequestSchema);
      if (pod.kind === 'ended') throw refused(hasEnded(pod.name, 'send a signal to'));
      const running = (pod.pod.sandbox?.containers ?? []).filter(({ status }) => status.state === 'running');
      if (wish.container !== undefined) chooseContainer(reached(pod), wish.container);
      const wanted = running.filter(({ status }) => wish.container === undefined || status.name === wish.container);
      if (wanted.length === 0) throw nothingRuns(pod.name);
      await Promise.all(wanted.map((container) => container.kill(wish.signal, signal)));
      return summaryOf(pod.pod);
    }),
    'POST /v1/pods/:namespace/:name/start': withPod(async (pod) => {
      if (pod.kind === 'foreign') throw notOurs(pod, 'start');
      return pod.kind === 'live' ? summaryOf(pod.pod) : await started(await pods.startAgain(pod));
    }),
    'POST /v1/pods/:namespace/:name/restart': withPod(async (pod, { request }) => {
      if (pod.kind === 'foreign') throw notOurs(pod, 'restart');
      const { graceSeconds } = await readJson(request, stopRequestSchema);
      return await started(await (pod.kind === 'live' ? pods.restart(pod, graceSeconds) : pods.startAgain(pod)));
    }),
    'POST /v1/pods/:namespace/:name/rename': withPod(async (pod, { request }) =>
      endedSummaryOf(await pods.rename(pod, (await readJson(request, renameRequestSchema)).name)),
    ),
    'POST /v1/pods/:namespace/:name/resize': async (call) => {
      const pod = findKnown(pods, call);
      if (pod.kind === 'foreign') throw notOurs(pod, 'resize');
      const wish = await readJson(call.request, resizeRequestSchema);
      if (pod.kind === 'ended') throw refused(hasEnded(pod.name, 'resize'));
      const warnings = await pods.resize(pod, wish, call.signal);
      sendJson(call.response, 200, { warnings: warnings.map((warning) => printable(warning)) });
    },
    'GET /v1/pods/:namespace/:name/wait': withPod(async (pod) => {
      if (pod.kind === 'ended') return pod.outcome;
      if (pod.kind === 'foreign') throw notOurs(pod, 'wait for');
      const { exitCode, reason, message } = await untilOver(pod);
      return { exitCode, reason, ...(message === undefined ? {} : { message }) };
    }),
    'DELETE /v1/pods/:namespace/:name': withPod(async (pod, { query }) => {
      if (pod.kind === 'ended') {
        await ended.remove(pod.id);
        return endedSummaryOf(pod);
      }
      if (pod.kind === 'foreign') throw notOurs(pod, 'remove', 'remove');
      if (query.get('force') !== 'true') throw refused(stillRuns(pod.name));
      void pod.pod.kill();
      const summary = await endOf(pod);
      const { namespace, name } = pod;
      const left = ended.list().filter((it) => it.namespace === namespace && it.name === name);
      for (const { id } of left) await ended.remove(id);
      return summary;
    }),
  };
}

const nothingRuns = (name: string) =>
  new PodvmError('failedPrecondition', `Cannot send a signal to ${name}: no such container of it runs`, {
    fix: `See \`podvm inspect ${name}\` for the containers.`,
  });
