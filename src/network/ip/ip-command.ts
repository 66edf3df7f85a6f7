import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { run } from '#host/process/run.ts';

/** The fields of iproute2's output (`ip -json`) that are read here. */
const linkSchema = v.object({
  ifname: v.string(),
  ifalias: v.optional(v.string()),
  mtu: v.number(),
  address: v.optional(v.string()),
  /** Flags of the link, such as `UP`. */
  flags: v.array(v.string()),
  /** Details of the kind of link; only a bridge has `mcast_snooping`. */
  linkinfo: v.optional(v.object({ info_data: v.optional(v.object({ mcast_snooping: v.optional(v.number()) })) })),
});
export type Link = v.InferOutput<typeof linkSchema>;

const routeSchema = v.object({
  /** `default`, an address, or a prefix. */
  dst: v.string(),
  gateway: v.optional(v.string()),
  dev: v.optional(v.string()),
  protocol: v.optional(v.string()),
  scope: v.optional(v.string()),
  type: v.optional(v.string()),
  table: v.optional(v.string()),
});
export type Route = v.InferOutput<typeof routeSchema>;

const addressedLinkSchema = v.object({
  ...linkSchema.entries,
  address: v.pipe(v.string(), v.regex(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/)),
  addr_info: v.array(v.object({ family: v.string(), local: v.string(), prefixlen: v.number(), scope: v.string() })),
});
export type AddressedLink = v.InferOutput<typeof addressedLinkSchema>;

/** Parses the output of `ip -json -details link show`. */
export function parseLinks(text: string): readonly Link[] {
  return parse(v.array(linkSchema), text.trim());
}

/** Parses the output of `ip -json route show`. */
export function parseRoutes(text: string): readonly Route[] {
  return parse(v.array(routeSchema), text.trim());
}

export async function readLinks(signal: AbortSignal): Promise<readonly Link[]> {
  return parseLinks(await ip(['-json', '-details', 'link', 'show'], signal));
}

/** The node's routes of every table, IPv4 and IPv6. */
export async function readRoutes(signal: AbortSignal): Promise<readonly Route[]> {
  return parseRoutes(await ip(['-json', 'route', 'show', 'table', 'all'], signal));
}

/** One interface of a netns, with its addresses and the routes that use it, read by one process. */
export async function readInterface(
  netns: string,
  name: string,
  signal: AbortSignal,
): Promise<{ readonly link: AddressedLink; readonly routes: readonly Route[] }> {
  const script = `address show dev ${name}\nroute show table all dev ${name}\n`;
  const [links, routes] = (await ip(['-json', '-netns', netns, '-batch', '-'], signal, script)).trim().split('\n');
  const [link] = parse(v.pipe(v.array(addressedLinkSchema), v.length(1)), links ?? '');
  if (!link) throw new PodvmError('corrupt', `Cannot read interface ${name} of ${netns}`);
  return { link, routes: parse(v.array(routeSchema), routes?.trim() ? routes : '[]') };
}

export async function ip(args: readonly string[], signal: AbortSignal, input = ''): Promise<string> {
  return (await run('ip', args, { signal, input, timeoutMs: 10_000 })).stdout;
}

function parse<T extends v.GenericSchema>(schema: T, text: string): v.InferOutput<T> {
  try {
    return v.parse(schema, JSON.parse(text === '' ? '[]' : text));
  } catch (cause) {
    throw new PodvmError('corrupt', 'Cannot read what ip printed', {
      cause,
      fix: 'Install the Debian package iproute2, 6.1 or newer.',
    });
  }
}
