import { setTimeout as delay } from 'node:timers/promises';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { run } from '#host/process/run.ts';
import { netnsName, partsById, tapName } from './netns.ts';

/** Time in which requests come together, in `ms`. */
const gatherMs = 10;
const timeoutMs = 10_000;

const qdiscSchema = v.array(v.looseObject({ kind: v.string(), drops: v.optional(v.number()) }));

/** Script that starts one tc for each netns. */
const countEach =
  'tap=$1; shift; for name; do printf "netns %s\\n" "$name"; ' +
  'tc -netns "$name" -s -json qdisc show dev "$tap" || printf "unknown\\n"; done';

type Counts = ReadonlyMap<string, number>;

interface Gathering {
  readonly ids: Set<string>;
  readonly counts: Promise<Counts>;
}

/**
 * Counts frames of guests that the filters of their taps have dropped. Requests of the same moment share one process,
 * because to start one takes this process longer than everything else that it does to measure a pod. So do requests
 * that take an older count: one of them counts for all.
 */
export class DroppedFrames {
  readonly #count: (sandboxIds: readonly string[]) => Promise<Counts>;
  readonly #nowMs: () => number;
  #next: Gathering | undefined;
  /** Sandboxes of requests that take an older count. */
  readonly #known = new Set<string>();
  #last: { readonly atMs: number; readonly counts: Counts } = { atMs: -Infinity, counts: new Map() };

  constructor(count = countDropped, nowMs = () => performance.now()) {
    this.#count = count;
    this.#nowMs = nowMs;
  }

  /**
   * `maxAgeMs`: how old the count may be. Errors: `notFound` when tc does not tell of the sandbox; those of running a
   * program.
   */
  async of(sandboxId: string, maxAgeMs = 0): Promise<number> {
    const { atMs, counts: last } = this.#last;
    const known = maxAgeMs > 0 && this.#nowMs() - atMs <= maxAgeMs ? last.get(sandboxId) : undefined;
    if (known !== undefined) return known;
    this.#next ??= this.#gather();
    const { ids, counts } = this.#next;
    ids.add(sandboxId);
    if (maxAgeMs > 0) for (const each of this.#known.add(sandboxId)) ids.add(each);
    const found = (await counts).get(sandboxId);
    if (found !== undefined) return found;
    throw new PodvmError(
      'notFound',
      `Cannot count dropped frames of ${sandboxId}: its network is gone, or tc does not tell`,
      {
        fix: 'Start the pod again, unless it is ending.',
      },
    );
  }

  #gather(): Gathering {
    const ids = new Set<string>();
    const count = async () => {
      await delay(gatherMs);
      this.#next = undefined;
      const atMs = this.#nowMs();
      const found = await this.#count([...ids]);
      for (const id of ids) if (!found.has(id)) this.#known.delete(id); // its pod is gone
      if ([...this.#known].every((id) => found.has(id))) this.#last = { atMs, counts: found };
      return found;
    };
    return { ids, counts: count() };
  }
}

async function countDropped(sandboxIds: readonly string[]): Promise<Counts> {
  const names = sandboxIds.map(netnsName);
  const { stdout } = await run('sh', ['-c', countEach, 'sh', tapName, ...names], { timeoutMs });
  return dropsById(stdout, sandboxIds);
}

/** Reads the script's output. What tc said of one netns fails no other. */
export function dropsById(stdout: string, sandboxIds: readonly string[]): Counts {
  const texts = partsById(stdout);
  return new Map(
    sandboxIds.flatMap((id) => {
      const drops = dropsIn(texts.get(netnsName(id)) ?? '');
      return drops === undefined ? [] : [[id, drops] as const];
    }),
  );
}

/**
 * Reads `tc -s -json qdisc show`: the drops of the queue that filters what comes in; 0 without one, undefined if the text
 * is something else.
 */
export function dropsIn(text: string): number | undefined {
  try {
    return v.parse(qdiscSchema, JSON.parse(text)).find(({ kind }) => kind === 'ingress')?.drops ?? 0;
  } catch {
    return undefined;
  }
}
