import type { Resources } from '#sandbox/sandbox.ts';
import { divideQuantity, millisOf, parseQuantity, unitsOf } from '#base/quantity.ts';
import type { PodContainer, ResourceSettings } from '../schema/container.ts';
import type { PodSpec } from '../schema/pod-spec.ts';
import type { ResourceFieldRef } from '../schema/volume.ts';

type Name = 'cpu' | 'memory' | 'ephemeral-storage';

/** Returns the limits of one container: cores in thousandths, everything else in bytes. */
export function containerResources(container: PodContainer): Resources {
  return resourcesOf(container.resources);
}

function resourcesOf(settings: ResourceSettings): Resources {
  return compact({
    memoryLimitBytes: amountOf(settings, 'limits', 'memory'),
    memoryRequestBytes: requestOf(settings, 'memory'),
    cpuLimitMillis: amountOf(settings, 'limits', 'cpu'),
    cpuRequestMillis: requestOf(settings, 'cpu'),
    ephemeralStorageBytes: amountOf(settings, 'limits', 'ephemeral-storage'),
  });
}

function amountOf(settings: ResourceSettings, which: 'limits' | 'requests', name: Name): number | undefined {
  const quantity = parseQuantity(settings[which][name] ?? '');
  if (quantity === undefined) return undefined;
  return name === 'cpu' ? millisOf(quantity) : unitsOf(quantity);
}

/** Returns the request, which defaults to the limit (Kubernetes' SetDefaults_Pod). */
function requestOf(settings: ResourceSettings, name: Name): number | undefined {
  return amountOf(settings, 'requests', name) ?? amountOf(settings, 'limits', name);
}

/**
 * Returns the limits of the whole pod: the larger of the final state (main containers and sidecars) and the largest
 * before it (an init container with the sidecars started earlier). A limit applies to the pod only if every container
 * has one. Source: k8s.io/component-helpers/resource/helpers.go, AggregateContainerLimits.
 */
export function podResources(spec: PodSpec): Resources {
  const summed = compact({
    memoryLimitBytes: total(spec, (it) => amountOf(it, 'limits', 'memory'), 'unlimited'),
    memoryRequestBytes: total(spec, (it) => requestOf(it, 'memory'), 'zero'),
    cpuLimitMillis: total(spec, (it) => amountOf(it, 'limits', 'cpu'), 'unlimited'),
    cpuRequestMillis: total(spec, (it) => requestOf(it, 'cpu'), 'zero'),
    ephemeralStorageBytes: total(spec, (it) => amountOf(it, 'limits', 'ephemeral-storage'), 'unlimited'),
  });
  // Limits of the pod itself override the sum of its containers' (KEP-2837).
  return spec.resources === undefined ? summed : { ...summed, ...resourcesOf(spec.resources) };
}

function total(
  spec: PodSpec,
  valueOf: (settings: ResourceSettings) => number | undefined,
  missing: 'unlimited' | 'zero',
): number | undefined {
  const values = [...spec.initContainers, ...spec.containers].map((container) => valueOf(container.resources));
  if (missing === 'unlimited' && values.includes(undefined)) return undefined;
  if (values.every((value) => value === undefined)) return undefined;
  let sidecars = 0;
  let peak = 0;
  spec.initContainers.forEach((container, index) => {
    const value = values[index] ?? 0;
    peak = Math.max(peak, sidecars + value);
    if (container.restartPolicy === 'Always') sidecars += value;
  });
  const together = values.slice(spec.initContainers.length).reduce((sum: number, value) => sum + (value ?? 0), 0);
  return Math.max(peak, sidecars + together);
}

function compact<T extends Readonly<Record<string, number | undefined>>>(values: T): { [K in keyof T]?: number } {
  const given = Object.entries(values).filter(([, value]) => value !== undefined);
  return Object.fromEntries(given) as { [K in keyof T]?: number }; // SAFE: only undefined values are left out
}

/** Formats a resource as the downward API does: in units of `divisor`, rounded up; without a limit, the machine's. */
export function resourceText(
  container: PodContainer,
  ref: ResourceFieldRef,
  machine: { readonly cpuMillis: number; readonly memoryBytes: number },
): string {
  const [which, name] = ref.resource.split('.') as ['limits' | 'requests', Name]; // SAFE: the schema's picklist
  const { limits, requests } = container.resources;
  const written = which === 'limits' ? limits[name] : (requests[name] ?? limits[name]);
  const missing = which === 'requests' || name === 'ephemeral-storage' ? '0' : machineText(name, machine);
  const quantity = parseQuantity(written ?? missing) ?? { nano: 0n };
  const divisor = parseQuantity(ref.divisor ?? '1') ?? { nano: 0n };
  // Kubernetes treats a divisor of 0, its zero value, as 1.
  return String(divideQuantity(quantity, divisor.nano === 0n ? { nano: 10n ** 9n } : divisor));
}

function machineText(name: 'cpu' | 'memory', machine: { readonly cpuMillis: number; readonly memoryBytes: number }) {
  return name === 'cpu' ? `${machine.cpuMillis}m` : String(machine.memoryBytes);
}
