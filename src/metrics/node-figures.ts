import { readdirSync, readFileSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';

/** What the kernel says of the node, and this process of itself. */
export interface NodeFigures {
  readonly memoryBytes: number | undefined;
  readonly availableBytes: number | undefined;
  /** Empty on a kernel without it (PSI, Documentation/accounting/psi.rst). */
  readonly pressure: readonly { readonly resource: string; readonly waiting: number; readonly stalled: number }[];
  readonly cpuSeconds: number;
  readonly startedSeconds: number;
  readonly residentBytes: number;
  readonly heapUsedBytes: number;
  readonly heapBytes: number;
  readonly descriptors: number;
  readonly maxDescriptors: number | undefined;
  readonly loopDelay: LoopDelay;
}

interface LoopDelay {
  readonly meanSeconds: number;
  readonly p99Seconds: number;
  readonly maxSeconds: number;
}

const pressureResources = ['cpu', 'memory', 'io'] as const;
/** Interval of the monitor's own timer, in `ms`, which is no delay. */
const resolutionMs = 20;

/** Measures the node. Disposing ends the monitor of the event loop. */
export class NodeMeter implements Disposable {
  readonly #loop: ReturnType<typeof monitorEventLoopDelay>;

  constructor() {
    this.#loop = monitorEventLoopDelay({ resolution: resolutionMs });
    this.#loop.enable();
  }

  /** Reads /proc at once: that takes no disk, and less time than a turn of the event loop on a busy node. */
  read(): NodeFigures {
    const memory = textOf('/proc/meminfo');
    const { user, system } = process.cpuUsage();
    const { rss, heapUsed, heapTotal } = process.memoryUsage();
    return {
      memoryBytes: kibOf(memory, 'MemTotal'),
      availableBytes: kibOf(memory, 'MemAvailable'),
      pressure: pressureResources.flatMap((resource) => pressureOf(resource, textOf(`/proc/pressure/${resource}`))),
      cpuSeconds: (user + system) / 1e6,
      startedSeconds: performance.timeOrigin / 1000,
      residentBytes: rss,
      heapUsedBytes: heapUsed,
      heapBytes: heapTotal,
      descriptors: readdirSync('/proc/self/fd').length,
      maxDescriptors: numberOf(/^Max open files\s+(\d+)/m.exec(textOf('/proc/self/limits'))?.[1]),
      loopDelay: this.#loopDelay(),
    };
  }

  #loopDelay(): LoopDelay {
    const loop = this.#loop;
    const seconds = (ns: number) => (loop.count === 0 ? 0 : Math.max(0, ns / 1e9 - resolutionMs / 1000));
    const delay = {
      meanSeconds: seconds(loop.mean),
      p99Seconds: seconds(loop.percentile(99)),
      maxSeconds: seconds(loop.max),
    };
    loop.reset();
    return delay;
  }

  [Symbol.dispose](): void {
    this.#loop.disable();
  }
}

/** Empty where the kernel has no such file. */
function textOf(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}

const numberOf = (text: string | undefined): number | undefined => (text === undefined ? undefined : Number(text));

function kibOf(meminfo: string, name: string): number | undefined {
  const kib = numberOf(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(meminfo)?.[1]);
  return kib === undefined ? undefined : kib * 1024;
}

/** `some avg10=0.00 avg60=0.00 avg300=0.00 total=12345`, and the same with `full`. */
function pressureOf(resource: string, text: string): NodeFigures['pressure'] {
  const secondsOf = (kind: string) => numberOf(new RegExp(`^${kind} .*total=(\\d+)$`, 'm').exec(text)?.[1]);
  const some = secondsOf('some');
  if (some === undefined) return [];
  return [{ resource, waiting: some / 1e6, stalled: (secondsOf('full') ?? 0) / 1e6 }];
}
