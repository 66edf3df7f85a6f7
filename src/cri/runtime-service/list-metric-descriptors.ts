import type { Answer } from '../rpc/service.ts';
import type { ListMetricDescriptorsResponseSchema } from '../schema/api_pb.ts';
import { metricDescriptors } from '../translate/metrics.ts';

export async function listMetricDescriptors(): Promise<Answer<typeof ListMetricDescriptorsResponseSchema>> {
  return { descriptors: metricDescriptors() };
}
