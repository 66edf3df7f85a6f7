import * as v from 'valibot';

/** `GET /v1/node`: NodeDetails. */
export const nodeDetailsSchema = v.object({
  /** Number of machines in the pool. */
  waitingMachines: v.number(),
});
export type NodeDetails = v.InferOutput<typeof nodeDetailsSchema>;
