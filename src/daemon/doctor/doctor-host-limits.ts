import type { Finding } from '#api/finding.ts';
import { controllersOf, hasCgroups2 } from '#host/cgroup/cgroup-tree.ts';
import { findDelegation, lackingOf, required, userUnit } from '../rootless/delegated-cgroup.ts';
import { cgroupOfNamespaces } from '../rootless/namespaces.ts';
import { findUserScope } from '../rootless/user-scope.ts';

const name = 'host limits';
const asRoot = 'Run podvm as root where guests must not be able to exceed the limits of their pods on the host.';
const userSystemd = 'this user’s systemd';
const limits: Readonly<Record<string, string>> = {
  memory: 'memory',
  pids: 'threads',
  cpu: 'processor time',
  io: 'disks',
};

/** Checks which limits the host sets for the machines of an ordinary user. `root`: the state directory. */
export async function hostLimits(root: string, hasDiskRate: boolean): Promise<Finding> {
  const last = await cgroupOfNamespaces(root);
  const present = last?.exists === true ? last : undefined;
  if (present?.cgroup !== undefined) return limited(present.cgroup, await controllersOf(present.cgroup), hasDiskRate);
  if (!(await hasCgroups2())) {
    const why = 'the host has no cgroups of version 2, of which it could delegate one';
    return unlimited(why, `Boot with \`systemd.unified_cgroup_hierarchy=1\`. ${asRoot}`);
  }
  if (present !== undefined) {
    const why = 'the node of this user was started without a delegated cgroup';
    return unlimited(why, 'Stop all pods; then `podvm doctor` says what the next node has.');
  }
  const own = await findDelegation(last?.cgroup);
  if (own.kind === 'delegated') return limited(own.path, await controllersOf(own.path), hasDiskRate);
  const scope = await findUserScope();
  if (scope.kind === 'possible') return limited(`a scope of ${userSystemd}`, scope.controllers, hasDiskRate);
  return unlimited(`${own.why}, and ${scope.why}`, [scope.fix, asRoot].filter(Boolean).join(' '));
}

function unlimited(why: string, fix: string): Finding {
  return {
    name,
    status: 'warn',
    detail: `the host does not limit the memory and processor time of machines: ${why}`,
    fix,
  };
}

/** `place`: where machines have their cgroups, with those controllers. */
function limited(place: string, controllers: readonly string[], hasDiskRate: boolean): Finding {
  const lacking = lackingOf(controllers).filter((each) => each !== 'io' || hasDiskRate);
  if (lacking.length === 0) return { name, status: 'ok', detail: `each machine has a cgroup below ${place}` };
  const all = lacking.some((each) => required.includes(each)) ? Object.keys(limits) : lacking;
  const what = all.map((each) => limits[each]).join(', ');
  return {
    name,
    status: 'warn',
    detail: `the host does not limit the ${what} of machines: ${place} lacks the controllers ${lacking.join(', ')}`,
    fix: place.includes(userSystemd) || userUnit(place) !== undefined ? ofUserSystemd() : ofOthers,
  };
}

const ofOthers =
  'Let the host delegate these as well: `Delegate=yes` of a service, or cgroup.subtree_control of the parent.';
const ofUserSystemd = () =>
  'As root, write the lines `[Service]` and `Delegate=cpu cpuset io memory pids` to /etc/systemd/system/user@.service.d/delegate.conf, ' +
  `then run \`systemctl daemon-reload\` and \`systemctl restart user@${process.getuid?.()}\`.`;
