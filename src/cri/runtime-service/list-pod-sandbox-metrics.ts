import type { Sandbox } from '#sandbox/sandbox.ts';
import { measureAll } from '../measure.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import type { ListPodSandboxMetricsRequest, ListPodSandboxMetricsResponseSchema } from '../schema/api_pb.ts';
import { podMetricsOf } from '../translate/metrics.ts';

export async function listPodSandboxMetrics(
  parts: CriParts,
  _request: ListPodSandboxMetricsRequest,
  signal: AbortSignal,
): Promise<Answer<typeof ListPodSandboxMetricsResponseSchema>> {
  return { podMetrics: await allPodMetrics(parts, signal) };
}

/** Returns the metrics of running pods. */
export async function allPodMetrics(parts: CriParts, signal: AbortSignal) {
  const measure = (sandbox: Sandbox, deadline: AbortSignal) => sandbox.metrics(deadline);
  const measured = await measureAll(parts, parts.pods.pods, measure, signal);
  const now = parts.clock.now();
  return [...measured].map(([pod, metrics]) => podMetricsOf(pod, metrics, now));
}
