import * as v from 'valibot';
import { type NodeEvent, nodeEventSchema, podSummarySchema } from '#api/pods.ts';
import { printable } from '#base/guest-text.ts';
import type { Client } from '../client.ts';
import { lines } from '../terminal/lines.ts';
import { detailText } from '../terminal/listing.ts';
import { chooser } from './label-selector.ts';
import { readOn } from './pod-commands.ts';
import { type Terminal, fixLine, write } from '../terminal/terminal.ts';

export interface EventsOptions {
  readonly follow: boolean;
  readonly watch: boolean;
  readonly output: 'text' | 'wide' | 'name' | 'json' | 'yaml';
  readonly json: boolean;
  readonly namespace?: string;
  readonly selector?: string;
}

/** Prints the events of pods, the oldest first; with `follow` also those that happen, until the client is ended. */
export async function eventsCommand(
  client: Client,
  pod: string | undefined,
  { follow, watch, output, json, namespace, selector }: EventsOptions,
  { stdout }: Terminal,
): Promise<void> {
  const isChosen = selector === undefined ? undefined : await choosing(client, selector);
  const query = new URLSearchParams({
    follow: String(follow || watch),
    ...(namespace === undefined ? {} : { namespace }),
    ...(pod === undefined ? {} : namesOf(pod)),
  });
  const answer = await client.stream('GET', `/v1/events?${query.toString()}`);
  const form = json ? 'json' : output;
  const textOf = printer(form);
  await readOn(async () => {
    for await (const line of lines(answer)) {
      const event = () => v.parse(nodeEventSchema, JSON.parse(line));
      if (isChosen !== undefined && !(await isChosen(event()))) continue;
      if (form === 'json') await write(stdout, `${line}\n`);
      else await write(stdout, form === 'yaml' ? await detailText([event()], form) : textOf(event()));
    }
  });
}

/**
 * Returns whether an event is of a pod with these labels. The pods are listed again for a pod that has begun since they were: one
 * that was removed has no later events.
 */
async function choosing(client: Client, selector: string): Promise<(event: NodeEvent) => Promise<boolean>> {
  const isChosen = chooser({ selector });
  const keyOf = ({ namespace, name }: Pick<NodeEvent, 'namespace' | 'name'>) => `${namespace}/${name}`;
  const known = new Map<string, boolean>();
  let listedAtMs = 0;
  const list = async () => {
    listedAtMs = Date.now();
    for (const pod of await client.get('/v1/pods?ended=true', v.array(podSummarySchema)))
      known.set(keyOf(pod), isChosen(pod));
  };
  await list();
  return async (event) => {
    if (!known.has(keyOf(event)) && Date.parse(event.at) >= listedAtMs) await list();
    return known.get(keyOf(event)) ?? false;
  };
}

function namesOf(pod: string): Record<string, string> {
  const [first = '', second] = pod.split('/');
  return second === undefined ? { name: first } : { namespace: first, name: second };
}

/** Returns what prints an event: as one or two lines, with `wide` always as one, with `name` each pod once. */
function printer(form: EventsOptions['output']): (event: NodeEvent) => string {
  const named = new Set<string>();
  return ({ at, type, reason, namespace, name, container, message, fix }) => {
    const whole = `${namespace}/${name}`;
    if (form === 'name') {
      if (named.has(whole)) return '';
      named.add(whole);
      return `${whole}\n`;
    }
    const isWide = form === 'wide';
    const pod = namespace === 'default' && !isWide ? name : whole;
    const object = container === undefined ? pod : `${pod}/${container}`;
    const line = [at, type.padEnd(7), reason, object, printable(message)].join('  ');
    if (fix === undefined) return `${line}\n`;
    return isWide ? `${line}; ${fixLine(printable(fix)).trim()}\n` : `${line}\n${fixLine(printable(fix))}\n`;
  };
}
