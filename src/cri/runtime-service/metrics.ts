import { PodvmError } from '#base/errors.ts';

/** Descriptors, lists and streams of metrics alike. */
export async function refuseMetrics(): Promise<never> {
  throw new PodvmError('unsupported', "Cannot list cAdvisor's metrics: PodVM has none yet", {
    fix: 'Use ListContainerStats and ListPodSandboxStats.',
  });
}

export async function* refuseMetricsStream(): AsyncGenerator<never> {
  yield await refuseMetrics();
}
