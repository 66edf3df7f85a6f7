import { stat } from 'node:fs/promises';
import { PodvmError } from '#base/errors.ts';
import { run } from '#host/run.ts';
import { ip } from './ip-command.ts';

/** Network namespaces and taps, by iproute2 in as few processes as it allows. */

/** The machine's NIC, inside the netns. */
export const tapName = 'tap0';

const netnsName = (sandboxId: string) => `podvm-${sandboxId}`;
export const netnsPath = (sandboxId: string) => `/run/netns/${netnsName(sandboxId)}`;

/**
 * Makes the netns with loopback up and, if asked, the tap. `vnet_hdr`: the guest may leave checksums and segmentation
 * to the node. Errors: `alreadyExists`, `failedPrecondition`. What an error leaves, `removeNetns` undoes.
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

function explain(sandboxId: string, cause: unknown): unknown {
  if (!(cause instanceof PodvmError)) return cause;
  const text = `${cause.message} ${cause.tail.join(' ')}`;
  if (/File exists/.test(text)) {
    return new PodvmError('alreadyExists', `Cannot make netns ${netnsName(sandboxId)}: it is there`, { cause });
  }
  if (/Operation not permitted|Permission denied/.test(text)) {
    return new PodvmError('failedPrecondition', `Cannot make netns ${netnsName(sandboxId)}: not permitted`, {
      cause,
      fix: 'Run podvm as root (it needs CAP_NET_ADMIN and CAP_SYS_ADMIN).',
    });
  }
  return cause;
}

/** Removes the netns and what is in it; one that is not there is no error. */
export async function removeNetns(sandboxId: string, signal: AbortSignal): Promise<void> {
  if (!(await isThere(netnsPath(sandboxId)))) return;
  await ip(['netns', 'delete', netnsName(sandboxId)], signal);
}

export async function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

const oneWay = (from: string, to: string) => [
  `qdisc add dev ${from} ingress`,
  `filter add dev ${from} parent ffff: protocol all u32 match u8 0 0 action mirred egress redirect dev ${to}`,
];

/**
 * Hands every frame that comes in on one of the two over to the other. By `u32`, which every kernel with `act_mirred`
 * has; `matchall` and `flower` are missing on some.
 */
export async function joinWithTap(sandboxId: string, interfaceName: string, signal: AbortSignal): Promise<void> {
  await run('tc', ['-netns', netnsName(sandboxId), '-batch', '-'], {
    signal,
    timeoutMs: 10_000,
    input: [...oneWay(interfaceName, tapName), ...oneWay(tapName, interfaceName)].join('\n'),
  }).catch((cause: unknown) => {
    if (signal.aborted) throw cause;
    throw new PodvmError('failedPrecondition', `Cannot join ${interfaceName} with the tap of ${sandboxId}`, {
      cause,
      fix: 'The kernel needs sch_ingress, cls_u32 and act_mirred; load the modules, or use `--network none`.',
    });
  });
}

/** Undoes the tap's half of `joinWithTap`, for an interface that is gone with its own. */
export async function separateFromTap(sandboxId: string, signal: AbortSignal): Promise<void> {
  await run('tc', ['-netns', netnsName(sandboxId), 'qdisc', 'del', 'dev', tapName, 'ingress'], {
    signal,
    timeoutMs: 10_000,
    okCodes: [0, 2], // 2: the kernel knows of none
  });
}

export async function setTapMtu(sandboxId: string, mtu: number, signal: AbortSignal): Promise<void> {
  await ip(['-netns', netnsName(sandboxId), 'link', 'set', 'dev', tapName, 'mtu', String(mtu)], signal);
}

const tunDevice = '/dev/net/tun';

/** Errors: `failedPrecondition` with the fix. Who may open it is the machine's matter, which has a node of its own. */
export async function checkTunDevice(): Promise<void> {
  const found = await stat(tunDevice).catch(() => undefined);
  if (found?.isCharacterDevice()) return;
  throw new PodvmError('failedPrecondition', `Cannot make a tap: ${tunDevice} is missing`, {
    fix: 'Load the kernel module: `modprobe tun`.',
  });
}
