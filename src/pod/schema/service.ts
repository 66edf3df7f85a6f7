import * as v from 'valibot';
import { metadata } from './objects.ts';
import * as s from './scalars.ts';

/** A Service, as far as a node without a cluster has it: a name and address for pods, and ports of the node. */
export const serviceSchema = v.object({
  apiVersion: v.literal('v1', 'must be v1'),
  kind: v.literal('Service'),
  metadata: v.pipe(
    metadata,
    v.check(
      ({ name }) => v.is(s.dnsLabel, name),
      'the name of a Service must be a DNS label (a-z, 0-9, "-"; at most 63 characters)',
    ),
  ),
  spec: v.object({
    type: v.optional(s.picklist(['ClusterIP', 'NodePort', 'LoadBalancer', 'ExternalName']), 'ClusterIP'),
    selector: v.optional(v.record(s.qualifiedName, s.labelValue), {}),
    ports: v.optional(
      s.list(
        v.object({
          name: v.optional(s.string),
          port: s.port,
          targetPort: s.unlessZero(s.portReference),
          nodePort: s.unlessZero(s.port),
          protocol: v.optional(s.picklist(['TCP', 'UDP', 'SCTP']), 'TCP'),
          appProtocol: v.optional(s.string),
        }),
        100,
      ),
      [],
    ),
    clusterIP: v.optional(s.string),
    publishNotReadyAddresses: v.optional(s.boolean, false),
    externalName: v.optional(s.string),
  }),
});
export type Service = v.InferOutput<typeof serviceSchema>;
