import type { Pod } from '../schema/objects.ts';
import type { Service } from '../schema/service.ts';
import { hasName, isSelected } from './served-services.ts';

type Container = Pod['spec']['containers'][number];
type ServicePort = Service['spec']['ports'][number];

/** Pods with the host ports of a Service, and sentences about what it does not do here. */
export interface Published {
  readonly pods: readonly Pod[];
  readonly warnings: readonly string[];
}

/**
 * Makes the ports of a Service of the type NodePort or LoadBalancer ports of the node. They are host ports, which have one
 * container each: they lead to the first pod that the Service selects.
 */
export function publish(service: Service, pods: readonly Pod[]): Published {
  const { type, ports } = service.spec;
  if (!hasName(service)) {
    const why = type === 'ExternalName' ? 'names outside have no alias here' : 'it has no selector';
    return { pods, warnings: [`has no effect: ${why}`] };
  }
  if (type !== 'NodePort' && type !== 'LoadBalancer') return { pods, warnings: [] };
  const selected = pods.filter((pod) => isSelected(service, pod));
  const [first] = selected;
  if (first === undefined) return { pods, warnings: ['has no port of the node: it selects no pod of these files'] };
  const warnings: string[] = [];
  if (selected.length > 1)
    warnings.push(`its port of the node leads to pod ${first.metadata.name} alone, of ${selected.length} pods`);
  let containers: readonly Container[] = first.spec.containers;
  for (const port of ports) {
    const hostPort = type === 'NodePort' ? port.nodePort : port.port;
    const at = hostPort === undefined ? -1 : indexOf(port, containers);
    if (hostPort === undefined) warnings.push(`port ${port.port} has no effect: it needs a nodePort`);
    else if (at === -1) warnings.push(`port ${port.port} has no effect: no container has the port ${port.targetPort}`);
    else containers = containers.map((it, index) => (index === at ? withHostPort(it, port, hostPort) : it));
  }
  const published = { ...first, spec: { ...first.spec, containers: [...containers] } };
  return { pods: pods.map((pod) => (pod === first ? published : pod)), warnings };
}

/** Index of the container that a port leads to: the one that declares it, or the first for a number that none declares. */
function indexOf({ port, targetPort = port, protocol }: ServicePort, containers: readonly Container[]): number {
  const found = containers.findIndex(({ ports }) =>
    ports.some((it) => it.protocol === protocol && (it.name === targetPort || it.containerPort === targetPort)),
  );
  return found === -1 && typeof targetPort === 'number' ? 0 : found;
}

function withHostPort(
  container: Container,
  { port, targetPort = port, protocol }: ServicePort,
  hostPort: number,
): Container {
  const declared = container.ports.find((it) => it.protocol === protocol && it.name === targetPort)?.containerPort;
  const containerPort = declared ?? Number(targetPort);
  return { ...container, ports: [...container.ports, { containerPort, hostPort, protocol }] };
}
