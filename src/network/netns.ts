import { mkdir, stat, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { isThere } from '#host/file/files.ts';
import { printable } from '#base/guest-text.ts';
import { run, type RunOptions } from '#host/process/run.ts';
import { ip } from './ip/ip-command.ts';
import type { FrameFilters } from './guard/frame-filter.ts';
import { bytecodeOf, type Instruction } from './guard/packet-program.ts';

/** Network namespaces and taps, made by iproute2 in as few processes as possible. */

/** The machine's NIC, inside the netns. */
export const tapName = 'tap0';

export const netnsName = (sandboxId: string) => `podvm-${sandboxId}`;
export const netnsPath = (sandboxId: string) => `/run/netns/${netnsName(sandboxId)}`;

/**
 * Makes the netns with loopback up and, if asked, the tap. `vnet_hdr`: the guest may leave checksums and segmentation to
 * the node. Errors: `alreadyExists`, `failedPrecondition`. After an error, `removeNetns` removes what was made.
 */
export async function makeNetns(
  sandboxId: string,
  tapOwnerUid: number | undefined,
  signal: AbortSignal,
): Promise<void> {
  const name = netnsName(sandboxId);
  await ip(['netns', 'add', name], signal).catch((cause: unknown) => {
    throw explain(sandboxId, cause);
  });
  const script = ['link set dev lo up'];
  if (tapOwnerUid !== undefined) {
    script.push(`tuntap add dev ${tapName} mode tap user ${tapOwnerUid} vnet_hdr`, `link set dev ${tapName} up`);
  }
  await ip(['-netns', name, '-batch', '-'], signal, script.join('\n'));
}

/**
 * Makes the tap in a netns that another program has made, and gives that netns a second name here. Errors:
 * `alreadyExists`, `failedPrecondition`. After an error, `leaveNetns` removes what was made.
 */
export async function enterNetns(
  sandboxId: string,
  path: string,
  tapOwnerUid: number,
  signal: AbortSignal,
): Promise<void> {
  const name = netnsPath(sandboxId);
  if (await isThere(name)) throw new PodvmError('alreadyExists', `Cannot make netns ${name}: it exists already`);
  await mkdir(dirname(name), { recursive: true, mode: 0o755 });
  await writeFile(name, '', { mode: 0o444 });
  const script = [`tuntap add dev ${tapName} mode tap user ${tapOwnerUid} vnet_hdr`, `link set dev ${tapName} up`];
  try {
    await run('mount', ['--bind', path, name], { signal, timeoutMs: 10_000 });
    await ip(['-netns', netnsName(sandboxId), '-batch', '-'], signal, script.join('\n'));
  } catch (cause) {
    signal.throwIfAborted();
    throw unusable(path, cause);
  }
}

/**
 * Moves the tap of a machine that was made for another netns into one that another program has made, which gets the name
 * here. A VMM that has the tap open keeps it. Errors: `failedPrecondition`. Undone by `leaveNetns`.
 */
export async function moveToNetns(sandboxId: string, path: string, signal: AbortSignal): Promise<void> {
  const name = netnsName(sandboxId);
  try {
    await ip(['-netns', name, 'link', 'set', 'dev', tapName, 'netns', path], signal);
    await removeNetns(sandboxId, signal); // its name: the VMM is still in it
    await writeFile(netnsPath(sandboxId), '', { mode: 0o444 });
    await run('mount', ['--bind', path, netnsPath(sandboxId)], { signal, timeoutMs: 10_000 });
    await ip(['-netns', name, 'link', 'set', 'dev', tapName, 'up'], signal);
  } catch (cause) {
    signal.throwIfAborted();
    throw unusable(path, cause);
  }
}

const unusable = (path: string, cause: unknown) =>
  new PodvmError('failedPrecondition', `Cannot use the network namespace ${printable(path)}`, {
    cause,
    fix: 'The program that runs podvm must have made it, for this pod only.',
  });

/** Undoes `enterNetns` and `joinWithTap`: the netns stays as its maker left it. */
export async function leaveNetns(sandboxId: string, interfaceName: string, signal: AbortSignal): Promise<void> {
  if (!(await isThere(netnsPath(sandboxId)))) return;
  const options = { signal, timeoutMs: 10_000, okCodes: 'any' } as const; // its maker may have removed all of it
  await run('tc', ['-netns', netnsName(sandboxId), 'qdisc', 'del', 'dev', interfaceName, 'ingress'], options);
  await run('ip', ['-netns', netnsName(sandboxId), 'link', 'delete', tapName], options);
  await removeNetns(sandboxId, signal);
}

function explain(sandboxId: string, cause: unknown): unknown {
  if (!(cause instanceof PodvmError)) return cause;
  const text = `${cause.message} ${cause.tail.map((line) => printable(line)).join(' ')}`;
  if (/File exists/.test(text)) {
    return new PodvmError('alreadyExists', `Cannot make netns ${netnsName(sandboxId)}: it exists already`, { cause });
  }
  if (/Operation not permitted|Permission denied/.test(text)) {
    return new PodvmError('failedPrecondition', `Cannot make netns ${netnsName(sandboxId)}: not permitted`, {
      cause,
      fix: 'Run podvm as root (it needs CAP_NET_ADMIN and CAP_SYS_ADMIN).',
    });
  }
  return cause;
}

/** Removes the netns and its contents; a missing one is no error. */
export async function removeNetns(sandboxId: string, signal: AbortSignal): Promise<void> {
  if (!(await isThere(netnsPath(sandboxId)))) return;
  await ip(['netns', 'delete', netnsName(sandboxId)], signal);
}

const oneWay = (from: string, to: string, filter: readonly Instruction[] | undefined) => [
  `qdisc add dev ${from} ingress`,
  ...(filter === undefined ? [] : [`filter add ${filterOf(from, filter)}`]),
  `filter add dev ${from} parent ffff: protocol all u32 match u8 0 0 action mirred egress redirect dev ${to}`,
];

/** Runs before the redirecting filter, whose preference the kernel chooses: 49152. */
const filterOf = (device: string, filter: readonly Instruction[]) =>
  `dev ${device} parent ffff: protocol all pref 1 handle 1 bpf direct-action bytecode "${bytecodeOf(filter)}"`;

/**
 * Redirects every frame between the two interfaces, except those that the filters drop. Uses `u32`, which every kernel with
 * `act_mirred` has; some lack `matchall` and `flower`. Returns whether frames are filtered: not on a kernel without
 * `cls_bpf`.
 */
export async function joinWithTap(
  sandboxId: string,
  interfaceName: string,
  filters: FrameFilters | undefined,
  signal: AbortSignal,
): Promise<boolean> {
  const lines = [
    ...oneWay(interfaceName, tapName, filters?.toGuest),
    ...oneWay(tapName, interfaceName, filters?.fromGuest),
  ];
  const done = await tc(sandboxId, ['-batch', '-'], signal, { input: lines.join('\n'), okCodes: 'any' });
  if (done.code === 0) return filters !== undefined;
  if (filters !== undefined && isWithoutBpf(done.stderr)) {
    await tc(sandboxId, ['qdisc', 'del', 'dev', interfaceName, 'ingress'], signal, { okCodes: [0, 2] });
    return await joinWithTap(sandboxId, interfaceName, undefined, signal);
  }
  throw new PodvmError(
    'failedPrecondition',
    `Cannot join ${interfaceName} with the tap of ${sandboxId}: ${printable(done.stderr.trim(), 200)}`,
    { fix: 'The kernel needs sch_ingress, cls_u32 and act_mirred; load the modules, or use `--network none`.' },
  );
}

/** Errors of a kernel without `cls_bpf`, built in or as a module. */
const isWithoutBpf = (said: string) => /classifier not found|No such file or directory/i.test(said);

/** Replaces the filter of the guest's frames on a tap that is already joined. */
export async function refilterTap(
  sandboxId: string,
  fromGuest: readonly Instruction[],
  signal: AbortSignal,
): Promise<void> {
  await tc(sandboxId, ['-batch', '-'], signal, { input: `filter replace ${filterOf(tapName, fromGuest)}` });
}

const tc = async (sandboxId: string, args: readonly string[], signal: AbortSignal, more: RunOptions = {}) =>
  await run('tc', ['-netns', netnsName(sandboxId), ...args], { signal, timeoutMs: 10_000, ...more });

/** Undoes `joinWithTap` for these interfaces. */
export async function separate(sandboxId: string, names: readonly string[], signal: AbortSignal): Promise<void> {
  for (const name of names) {
    await tc(sandboxId, ['qdisc', 'del', 'dev', name, 'ingress'], signal, { okCodes: [0, 2] }); // 2: there is no queue
  }
}

/**
 * Script that starts one tc for each netns, in a third of the time that it takes to start them from here. It rests after
 * every eighth, since all of many would keep a processor from pods and from this process for a quarter of a second.
 */
const listEach =
  'commands=$1; shift; for id; do printf "netns %s\\n" "$id"; ' +
  'printf "%s" "$commands" | tc -netns "podvm-$id" -batch - || printf "unknown\\n"; ' +
  'listed=$((listed + 1)); [ $((listed % 8)) -ne 0 ] || sleep 0.05; done';

/**
 * Lists queues and filters that `joinWithTap` made in each sandbox's netns, as text by sandbox id. Sandboxes whose
 * netns cannot be read are left out.
 */
export async function listFilters(
  sandboxIds: readonly string[],
  names: readonly string[],
  signal: AbortSignal,
): Promise<ReadonlyMap<string, string>> {
  const commands = names.map((name) => `filter show dev ${name} parent ffff:\n`).join('');
  const { stdout } = await run('sh', ['-c', listEach, 'sh', commands, ...sandboxIds], { signal, timeoutMs: 30_000 });
  return partsById(stdout);
}

/** Splits the text at the lines `netns ID`. */
export function partsById(listed: string): ReadonlyMap<string, string> {
  const parts = listed.split(/^netns /m).slice(1);
  return new Map(
    parts.flatMap((part) => {
      const end = part.indexOf('\n');
      const text = part.slice(end + 1);
      return /^unknown$/m.test(text) ? [] : [[part.slice(0, end), text] as const];
    }),
  );
}

export async function setTapMtu(sandboxId: string, mtu: number, signal: AbortSignal): Promise<void> {
  await ip(['-netns', netnsName(sandboxId), 'link', 'set', 'dev', tapName, 'mtu', String(mtu)], signal);
}

const tunDevice = '/dev/net/tun';

/** Errors: `failedPrecondition` with the fix. Permissions do not matter: the machine gets its own device node. */
export async function checkTunDevice(): Promise<void> {
  const found = await stat(tunDevice).catch(() => undefined);
  if (found?.isCharacterDevice()) return;
  throw new PodvmError('failedPrecondition', `Cannot make a tap: ${tunDevice} is missing`, {
    fix: 'Load the kernel module: `modprobe tun`.',
  });
}
