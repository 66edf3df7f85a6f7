import type { Answer } from '../rpc/service.ts';
import { CgroupDriver, type RuntimeConfigResponseSchema } from '../schema/api_pb.ts';

/**
 * Reports the driver `cgroupfs`: containers' cgroups are in the guest, which has no systemd, and a kubelet need not make any on the
 * host.
 */
export async function runtimeConfig(): Promise<Answer<typeof RuntimeConfigResponseSchema>> {
  return { linux: { cgroupDriver: CgroupDriver.CGROUPFS } };
}
