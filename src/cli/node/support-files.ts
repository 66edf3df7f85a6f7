import * as v from 'valibot';
import { podDescriptionSchema } from '#api/description.ts';
import { diagnosisSchema } from '#api/finding.ts';
import { podDetailsSchema, podSummarySchema, type PodSummary } from '#api/pods.ts';
import type { SupportFile } from '#api/support-file.ts';
import { kindOf, messageOf } from '#base/errors.ts';
import { openDeadline } from '#host/deadline.ts';
import type { Client } from '../client.ts';

/** The most pods that are described, and at a time. */
const maxPods = 100;
const atATime = 4;
const logLines = 500;
/** Time for each answer of the node, in `ms`; it may have to wait for a guest itself. */
const answerMs = 60_000;
/** Limits of what is kept of each text that the node streams, and of all, in bytes: containers write what they like. */
const maxTextBytes = 1024 * 1024;
const maxAllBytes = 32 * 1024 * 1024;

/**
 * Asks the node, if one serves, for what a bug report needs. Only known fields are taken, none of which holds what a pod was given or what
 * its programs wrote: no variables, arguments, labels, annotations and files of Secrets, and no messages.
 */
export async function supportFiles(
  client: Client,
  { logs }: { readonly logs: boolean },
  signal: AbortSignal,
): Promise<SupportFile[]> {
  /** A node that hangs is worth a report, too. */
  const inTime = async <T>(ask: (ending: AbortSignal) => Promise<T>): Promise<T> => {
    using deadline = openDeadline(answerMs, signal);
    return await ask(deadline.signal);
  };
  const get = async <S extends v.GenericSchema>(path: string, schema: S) =>
    await inTime((ending) => client.get(path, schema, ending));
  const files: SupportFile[] = [];
  const add = async (name: string, read: () => Promise<string>) => {
    const text = await read().catch((error: unknown) => {
      signal.throwIfAborted();
      return `not there: ${messageOf(error)}\n`;
    });
    files.push({ name, text });
  };
  let room = maxAllBytes;
  const stream = (path: string) =>
    inTime(async (ending) => {
      const text = await endOf(await client.stream('GET', path, undefined, ending), Math.min(maxTextBytes, room));
      room -= text.length;
      return text;
    });
  let pods: readonly PodSummary[] = [];
  let isServed = true;
  await add('node/pods.json', async () => {
    const listed = get('/v1/pods?ended=true', v.array(podSummarySchema));
    pods = await listed.catch((error: unknown) => {
      isServed = kindOf(error) !== 'unavailable';
      throw error;
    });
    return json(pods.map(withoutLabels));
  });
  if (!isServed) return [];
  await add('node/metrics.txt', () => stream('/metrics'));
  await add('node/log.txt', () => stream('/v1/log'));
  const rest = pods.slice(0, maxPods);
  const leftOut = pods.slice(maxPods).map(({ namespace, name }) => `${namespace}/${name}\n`);
  if (leftOut.length > 0) {
    const text = `${leftOut.length} pods of node/pods.json are not described: a report has at most ${maxPods}\n`;
    files.push({ name: 'pods/left-out.txt', text: text + leftOut.join('') });
  }
  const work = async () => {
    for (let pod = rest.shift(); pod !== undefined; pod = rest.shift()) await addPod(pod);
  };
  const addPod = async ({ namespace, name, endedAt }: PodSummary) => {
    const path = `/v1/pods/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`;
    const of = `pods/${namespace}_${name}`;
    await add(`${of}/description.json`, async () =>
      json(withoutMessages(await get(`${path}/description`, podDescriptionSchema))),
    );
    await add(`${of}/machine.json`, async () => json((await get(path, podDetailsSchema)).sandbox));
    if (endedAt === undefined) {
      await add(`${of}/doctor.json`, async () => {
        const { isHealthy, findings } = await get(`${path}/diagnosis`, diagnosisSchema);
        return json({ isHealthy, findings: findings.filter(({ name: of }) => !hasMessage(of)) });
      });
    }
    if (!logs) return;
    const { containers } = await get(path, podDetailsSchema).catch(() => ({ containers: [] }));
    for (const container of containers) {
      const query = `container=${encodeURIComponent(container.name)}&tail=${logLines}`;
      await add(`${of}/logs/${container.name}.log`, () => stream(`${path}/logs?${query}`));
    }
  };
  await Promise.all(Array.from({ length: atATime }, work));
  return files;
}

/** The last bytes of a stream, from the beginning of a line. */
async function endOf(stream: AsyncIterable<Uint8Array>, maxBytes: number): Promise<string> {
  let kept: Uint8Array[] = [];
  let size = 0;
  let isCut = false;
  for await (const chunk of stream) {
    kept.push(chunk);
    size += chunk.length;
    if (size < 2 * maxBytes + chunk.length) continue;
    kept = [Buffer.concat(kept).subarray(size - maxBytes)]; // seldom, so that a long stream is not copied over and over
    size = maxBytes;
    isCut = true;
  }
  const all = Buffer.concat(kept);
  if (!isCut && all.length <= maxBytes) return all.toString();
  const end = all.subarray(Math.max(0, all.length - maxBytes));
  return `(the beginning is left out)\n${end.subarray(end.indexOf('\n') + 1).toString()}`;
}

const json = (value: unknown): string => `${JSON.stringify(value ?? null, null, 2)}\n`;

type Described = v.InferOutput<typeof podDescriptionSchema>;

/** Messages may quote commands, probes and what a container wrote as its last words. */
function withoutMessages({ containers, events, reason, machine, ...pod }: Described) {
  return {
    ...pod,
    ...(reason === undefined ? {} : { reason: reason.split(':')[0] }),
    ...(machine === undefined ? {} : { machine }),
    containers: containers.map(withoutMessage),
    events: events.map(withoutMessage),
  };
}

function withoutMessage<T extends { readonly message?: string | undefined }>(told: T): Omit<T, 'message'> {
  const { message: _, ...rest } = told;
  return rest;
}

function withoutLabels(pod: PodSummary): Omit<PodSummary, 'labels'> {
  const { labels: _, ...rest } = pod;
  return rest;
}

/** Findings of a diagnosis whose detail is such a message. */
const hasMessage = (finding: string): boolean => finding === 'event' || finding.startsWith('end of ');
