import { PodvmError } from '#base/errors.ts';
import type { Link } from '#link/link.ts';
import type { GuestNetwork } from '#network/network.ts';
import { etcHostsOf, resolvConfOf } from '../container/etc-files.ts';
import { kernelModulesOf } from '../container/kernel-modules.ts';
import type { GuestConnection } from '../live/guest-connection.ts';
import type { Params } from '#wire/messages.ts';
import type { Surroundings } from '../parts.ts';
import type { PhaseClock } from '../state/phases.ts';
import { cgroupResourcesOf } from '../resources.ts';
import type { Resources, SandboxSpec } from '../sandbox.ts';
import type { UserNamespace } from '../spec/user-namespace.ts';

/** Gives the guest the pod's identity: clock, entropy, names and users. Errors: those of the agent. */
export async function configureGuest(
  spec: SandboxSpec,
  guest: Pick<Link, 'call'>,
  { surroundings, phases }: { readonly surroundings: Surroundings; readonly phases: PhaseClock },
  signal: AbortSignal,
): Promise<void> {
  const configured = await guest.call(
    'configure',
    {
      hostname: spec.hostname,
      realtimeMs: surroundings.nowMs(),
      entropy: Buffer.from(surroundings.randomBytes(64)).toString('base64'),
      machineId: Buffer.from(surroundings.randomBytes(16)).toString('hex'),
      sharePidNamespace: spec.sharePidNamespace,
      kernelModules: kernelModulesOf(spec),
      ...(spec.sctp ? { sctp: true } : {}),
      ...(spec.userNamespace === undefined ? {} : { userNamespace: guestUsersOf(spec.userNamespace) }),
    },
    signal,
  );
  phases.add('guest', configured.phases);
}

/** Copies the lists, since the wire's are mutable. */
function guestUsersOf({ uids, gids }: UserNamespace): NonNullable<Params<'configure'>['userNamespace']> {
  return { uids: [...uids], gids: [...gids] };
}

interface Connecting {
  readonly network: GuestNetwork;
  /** The pod's limits. */
  readonly resources: Resources;
  readonly phases: PhaseClock;
}

/**
 * Begins to give the guest its connection, which takes as long as making a container. The call has left when this returns,
 * so that the agent gets it before a later one that makes a container.
 */
export function beginConnection(
  spec: SandboxSpec,
  guest: Pick<Link, 'call'>,
  connecting: Connecting,
  signal?: AbortSignal,
): GuestConnection {
  const ending = new AbortController();
  const both = signal === undefined ? ending.signal : AbortSignal.any([signal, ending.signal]);
  let isMade = false;
  const made = connect(spec, guest, connecting, both).then(
    () => void (isMade = true),
    (error: unknown) => {
      throw ending.signal.aborted ? ending.signal.reason : error; // the call knows only that it was cancelled
    },
  );
  made.catch(() => undefined); // for those that wait for it
  return {
    get isMade() {
      return isMade;
    },
    made,
    async end() {
      ending.abort(new PodvmError('cancelled', 'Cannot connect the guest: the sandbox is being stopped'));
      await Promise.allSettled([made]);
    },
  };
}

/**
 * Whether the start of a pod waits for its guest's connection: the guest's kernel may refuse what the pod's author has
 * named, which is an error of the call that names it.
 */
export const waitsForConnection = ({ sysctls }: SandboxSpec): boolean => Object.keys(sysctls).length > 0;

/** Gives the guest addresses, the pod's hosts and DNS files, sysctls and limits. Errors: those of the agent. */
async function connect(
  spec: SandboxSpec,
  guest: Pick<Link, 'call'>,
  { network, resources, phases }: Connecting,
  signal: AbortSignal,
): Promise<void> {
  const addresses = network.interfaces.flatMap((each) => each.addresses);
  const connected = await guest.call(
    'connect',
    {
      etcHosts: etcHostsOf(spec, addresses),
      resolvConf: resolvConfOf(spec, network.dns),
      sysctls: { ...defaultSysctls, ...spec.sysctls },
      network:
        network.interfaces.length === 0
          ? null
          : {
              interfaces: network.interfaces.map((each) => ({ ...each, addresses: [...each.addresses] })),
              routes: network.routes.map((route) => ({ ...route })),
            },
      resources: cgroupResourcesOf(resources),
    },
    signal,
  );
  phases.add('guest', connected.phases);
}

/**
 * Kubernetes' usual defaults (containerd's `enable_unprivileged_ports` and `enable_unprivileged_icmp`): every port may be
 * bound, and every group may ping. Both apply to IPv6 as well.
 */
const defaultSysctls = {
  'net.ipv4.ip_unprivileged_port_start': '0',
  'net.ipv4.ping_group_range': '0 2147483647',
} as const;
