import { Metrics } from './metrics.ts';

/** What a pod uses in its guest, and what its machine takes of the node. */
export interface PodUsage {
  readonly memoryBytes: number | undefined;
  readonly memoryRequestBytes: number | undefined;
  readonly memoryLimitBytes: number | undefined;
  /** Private memory of the VMM, guest included. */
  readonly machineBytes: number | undefined;
  /** In cores, between the last two measurements; undefined before the second. */
  readonly cores: number | undefined;
  readonly machineCores: number | undefined;
}

/** Figures of the node at one time. */
export interface NodeSample {
  /** In seconds since 1970. */
  readonly at: number;
  readonly podBytes: number;
  readonly machineBytes: number;
  readonly podCores: number | undefined;
  readonly machineCores: number | undefined;
}

const maxSamples = 720;

interface Measured {
  readonly atMs: number;
  readonly cpu: number;
  readonly machineCpu: number;
}

/** Rates and histories from successive answers of `/metrics`, while these pages are open. */
class Usage {
  metrics: Metrics | undefined;
  pods: ReadonlyMap<string, PodUsage> = new Map();
  readonly samples: NodeSample[] = [];
  readonly #measured = new Map<string, { readonly last: Measured; readonly before: Measured | undefined }>();

  take(text: string): this {
    const metrics = new Metrics(text);
    const pods = new Map<string, PodUsage>();
    const guest = {
      memory: byPod(metrics, 'container_memory_usage_bytes'),
      limit: byPod(metrics, 'container_spec_memory_limit_bytes'),
      cpu: byPod(metrics, 'container_cpu_usage_seconds_total'),
    };
    const machine = {
      request: byPod(metrics, 'podvm_pod_memory_request_bytes'),
      bytes: byPod(metrics, 'podvm_pod_vmm_private_memory_bytes'),
      cpu: byPod(metrics, 'podvm_pod_vmm_cpu_seconds_total'),
      age: byPod(metrics, 'podvm_pod_figures_age_seconds'),
    };
    for (const [key, machineBytes] of machine.bytes) {
      const atMs = metrics.atMs - 1000 * (machine.age.get(key) ?? 0);
      const rates = this.#rates(key, atMs, guest.cpu.get(key), machine.cpu.get(key));
      const limit = guest.limit.get(key);
      const memoryLimitBytes = limit === 0 ? undefined : limit;
      const memory = { memoryBytes: guest.memory.get(key), memoryRequestBytes: machine.request.get(key) };
      pods.set(key, { ...memory, memoryLimitBytes, machineBytes, ...rates });
    }
    for (const key of this.#measured.keys()) if (!pods.has(key)) this.#measured.delete(key);
    this.metrics = metrics;
    this.pods = pods;
    const all = [...pods.values()];
    const sumOf = (value: (usage: PodUsage) => number | undefined) =>
      all.reduce((sum, it) => sum + (value(it) ?? 0), 0);
    const hasRates = all.length === 0 || all.some(({ cores }) => cores !== undefined);
    this.samples.push({
      at: Date.now() / 1000,
      podBytes: sumOf((it) => it.memoryBytes),
      machineBytes: sumOf((it) => it.machineBytes),
      podCores: hasRates ? sumOf((it) => it.cores) : undefined,
      machineCores: hasRates ? sumOf((it) => it.machineCores) : undefined,
    });
    if (this.samples.length > maxSamples) this.samples.shift();
    return this;
  }

  #rates(key: string, atMs: number, cpu: number | undefined, machineCpu: number | undefined) {
    const none = { cores: undefined, machineCores: undefined };
    if (cpu === undefined || machineCpu === undefined) return none;
    let known = this.#measured.get(key);
    const isNew = known === undefined || known.last.cpu !== cpu || known.last.machineCpu !== machineCpu;
    if (isNew) {
      const isRestarted = known !== undefined && cpu < known.last.cpu;
      known = { last: { atMs, cpu, machineCpu }, before: isRestarted ? undefined : known?.last };
      this.#measured.set(key, known);
    }
    const { last, before } = known ?? {};
    if (last === undefined || before === undefined || last.atMs <= before.atMs) return none;
    const seconds = (last.atMs - before.atMs) / 1000;
    return { cores: (last.cpu - before.cpu) / seconds, machineCores: (last.machineCpu - before.machineCpu) / seconds };
  }
}

/** Values of whole pods: those of their containers have a label more. */
function byPod(metrics: Metrics, name: string): ReadonlyMap<string, number> {
  const whole = metrics.all(name).filter(({ labels }) => labels['container'] === undefined);
  return new Map(whole.map(({ labels, value }) => [`${labels['namespace'] ?? ''}/${labels['pod'] ?? ''}`, value]));
}

/** One history for all pages, so that it goes on while another page is shown. */
export const usage = new Usage();
export type { Usage };
