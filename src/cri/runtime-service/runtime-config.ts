import type { Answer } from '../rpc/service.ts';
import { CgroupDriver, type RuntimeConfigResponseSchema } from '../schema/api_pb.ts';

/** Containers' cgroups are in the guest, where no systemd is: a kubelet need not make any on the host. */
export async function runtimeConfig(): Promise<Answer<typeof RuntimeConfigResponseSchema>> {
  return { linux: { cgroupDriver: CgroupDriver.CGROUPFS } };
}
