import { isIPv4 } from 'node:net';
import type { Served, ServiceTarget } from '#base/served-services.ts';
import type { RunningPod } from '../pods.ts';
import type { Pod } from '../schema/objects.ts';
import type { Service } from '../schema/service.ts';

/** Domain of the names of Services. */
const domain = 'svc.cluster.local';

/** A Service of this node. */
export interface KnownService {
  readonly service: Service;
  /** Its own address; undefined for a headless one, whose name has the addresses of its pods. */
  readonly address?: string | undefined;
}

/** A running pod as Services see it. */
export type ServingPod = Pick<RunningPod, 'pod' | 'status'>;

/** Whether a Service has no address of its own. */
export const isHeadless = ({ spec }: Service): boolean => spec.clusterIP === 'None';

/** Whether pods reach the Service by its name: it selects pods, and is not an alias of a name outside. */
export const hasName = ({ spec: { type, selector } }: Service): boolean =>
  type !== 'ExternalName' && Object.keys(selector).length > 0;

export function isSelected({ metadata: { namespace }, spec }: Service, { metadata }: Pick<Pod, 'metadata'>): boolean {
  const wanted = Object.entries(spec.selector);
  return (
    metadata.namespace === namespace &&
    wanted.length > 0 &&
    wanted.every(([key, value]) => metadata.labels[key] === value)
  );
}

/** DNS settings of a pod that reaches Services by name, as in a cluster. */
export const serviceDns = (namespace: string, nameserver: string) => ({
  nameservers: [nameserver],
  searches: [`${namespace}.${domain}`, domain, 'cluster.local'],
  options: ['ndots:5'],
});

/** Names and addresses of the Services, with the pods that are ready. */
export function servedOf(services: readonly KnownService[], pods: readonly ServingPod[]): Served {
  const found = services.map((known) => ({ ...known, pods: pods.flatMap((pod) => placeIn(known.service, pod)) }));
  return {
    services: found.flatMap(({ service, address, pods: own }) =>
      address === undefined
        ? []
        : [
            {
              address,
              ports: service.spec.ports.map(({ protocol, port, targetPort = port }) => ({
                protocol,
                port,
                targets: own.flatMap((pod) => targetOf(pod, protocol, targetPort)),
              })),
            },
          ],
    ),
    names: found.flatMap(({ service: { metadata }, address, pods: own }) => {
      const name = `${metadata.name}.${metadata.namespace}.${domain}`;
      if (address !== undefined) return [{ name, address }];
      const hosts = own.flatMap(({ spec: { hostname, subdomain }, address: ip }) =>
        hostname === undefined || subdomain !== metadata.name ? [] : [{ name: `${hostname}.${name}`, address: ip }],
      );
      return [...own.map(({ address: ip }) => ({ name, address: ip })), ...hosts];
    }),
  };
}

interface Place {
  readonly spec: Pod['spec'];
  readonly address: string;
}

function placeIn(service: Service, { pod, status }: ServingPod): readonly Place[] {
  const address = status.podIPs.find((ip) => isIPv4(ip));
  const isReady = status.conditions.some((it) => it.type === 'Ready' && it.status === 'True');
  const isServing = isReady || service.spec.publishNotReadyAddresses;
  if (address === undefined || status.isTerminating || !isServing || !isSelected(service, pod)) return [];
  return [{ spec: pod.spec, address }];
}

function targetOf({ spec, address }: Place, protocol: string, targetPort: string | number): readonly ServiceTarget[] {
  if (typeof targetPort === 'number') return [{ address, port: targetPort }];
  const named = spec.containers
    .flatMap(({ ports }) => ports)
    .find((it) => it.name === targetPort && it.protocol === protocol);
  return named === undefined ? [] : [{ address, port: named.containerPort }];
}
