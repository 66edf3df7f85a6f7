import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { podDetailsSchema, podSummarySchema } from '#api/pods.ts';
import type { Client } from '../client.ts';
import { failureCode } from '../exit-codes.ts';
import { OutputPrinter } from '../terminal/output-printer.ts';
import { errorText, type Terminal, write } from '../terminal/terminal.ts';
import { parseSelector } from './label-selector.ts';
import { print, readOn, wholeNumber } from './pod-commands.ts';
import { podPath } from './pod-name.ts';

export interface LogsOptions {
  readonly container?: string;
  readonly allContainers: boolean;
  readonly selector?: string;
  readonly follow: boolean;
  readonly previous: boolean;
  readonly tail?: string;
  readonly timestamps: boolean;
  readonly since?: string;
  readonly until?: string;
}

/** A container whose output is printed; without a name, the one that the node chooses. */
interface Source {
  readonly pod: string;
  readonly container: string | undefined;
}

/** Limit of logs that are followed at a time. */
const maxFollowed = 50;

/**
 * Prints the output of containers: of one as it is, of several in lines that begin with the name, one log after another, or
 * as they come with `follow`. Returns the exit code: a log that cannot be read does not keep the others from being
 * printed. Errors: `invalid`, `notFound`.
 */
export async function logsCommand(
  client: Client,
  pods: readonly string[],
  options: LogsOptions,
  terminal: Terminal,
): Promise<number> {
  const query = queryOf(options);
  const sources = await sourcesOf(client, pods, options);
  const [only] = sources;
  if (sources.length === 1 && only !== undefined) {
    await print(await client.stream('GET', pathOf(only, query)), terminal.stdout);
    return 0;
  }
  if (options.follow && sources.length > maxFollowed) {
    throw new PodvmError('invalid', `Cannot follow ${sources.length} logs: at most ${maxFollowed} are possible`, {
      fix: 'Choose fewer pods, or leave --follow out.',
    });
  }
  const printer = new OutputPrinter(terminal, terminal.hasColour);
  for (const [number, { pod, container }] of sources.entries())
    printer.addSource(number, container === undefined ? pod : `${pod}/${container}`);
  let code = 0;
  const printOne = async (source: Source, number: number) => {
    try {
      const chunks = await client.stream('GET', pathOf(source, query));
      await readOn(async () => {
        for await (const chunk of chunks) await printer.print(number, 'stdout', Buffer.from(chunk));
      });
    } catch (error) {
      code = failureCode;
      await write(terminal.stderr, errorText(error));
    }
  };
  if (options.follow) await Promise.all(sources.map(printOne));
  else for (const [number, source] of sources.entries()) await printOne(source, number);
  await printer.flush();
  return code;
}

/** The containers that the command names. Errors: `invalid`, `notFound`. */
async function sourcesOf(client: Client, pods: readonly string[], options: LogsOptions): Promise<readonly Source[]> {
  const { selector, container, allContainers } = options;
  if ((selector === undefined) === (pods.length === 0)) {
    throw new PodvmError('invalid', 'Cannot print logs: either pods or a selector must be given', {
      fix: 'Write `podvm logs POD...` or `podvm logs -l app=web`.',
    });
  }
  const named = selector === undefined ? pods : await selected(client, selector);
  if (!allContainers) return named.map((pod) => ({ pod, container }));
  const found: Source[] = [];
  for (const pod of named) {
    const { containers } = await client.get(podPath(pod), podDetailsSchema);
    // One that has never run has no log.
    const begun = containers.filter(({ state, restartCount }) => state !== 'waiting' || restartCount > 0);
    found.push(...begun.map(({ name }) => ({ pod, container: name })));
  }
  return found;
}

async function selected(client: Client, selector: string): Promise<readonly string[]> {
  const isSelected = parseSelector(selector);
  const all = await client.get('/v1/pods?ended=true', v.array(podSummarySchema));
  const pods = all.filter(({ labels = {} }) => isSelected(labels));
  if (pods.length > 0) return pods.map(({ namespace, name }) => `${namespace}/${name}`);
  throw new PodvmError('notFound', `Cannot print logs: no pod has the labels ${selector}`, {
    fix: 'See `podvm ps -a -o wide` for the labels.',
  });
}

const pathOf = ({ pod, container }: Source, query: URLSearchParams): string => {
  const own = new URLSearchParams(query);
  if (container !== undefined) own.set('container', container);
  return `${podPath(pod)}/logs?${own.toString()}`;
};

function queryOf(options: LogsOptions): URLSearchParams {
  const query = new URLSearchParams({ follow: String(options.follow), previous: String(options.previous) });
  // docker and kubectl write so that they mean all lines.
  const { tail = 'all' } = options;
  if (tail !== 'all' && tail !== '-1') query.set('tail', String(wholeNumber('--tail', tail)));
  if (options.timestamps) query.set('timestamps', 'true');
  for (const name of ['since', 'until'] as const) {
    const given = options[name];
    if (given !== undefined) query.set(name, timeOf(name, given, Date.now()));
  }
  return query;
}

const unitMs: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Reads `90s`, `1h30m` as a time before now, or a time as it is. Errors: `invalid`. */
export function timeOf(option: string, given: string, nowMs: number): string {
  if (/^(\d+[smhd])+$/.test(given)) {
    const parts = [...given.matchAll(/(\d+)([smhd])/g)];
    const agoMs = parts.reduce((sum, [, count, unit = '']) => sum + Number(count) * (unitMs[unit] ?? 0), 0);
    if (agoMs <= nowMs) return new Date(nowMs - agoMs).toISOString();
  }
  const time = new Date(given);
  if (/^\d{4}-\d\d-\d\d/.test(given) && !Number.isNaN(time.getTime())) return time.toISOString();
  throw new PodvmError(
    'invalid',
    `Cannot use --${option}: must be a duration or a time, got ${JSON.stringify(given)}`,
    {
      fix: `Give one such as --${option} 1h30m or --${option} 2026-01-31T12:00:00Z.`,
    },
  );
}
