import { readFile, statfs } from 'node:fs/promises';
import { availableParallelism, totalmem } from 'node:os';
import { join } from 'node:path';
import { diagnosisOf, diagnosisText, type Finding } from '#api/finding.ts';
import { messageOf } from '#base/errors.ts';
import { hasCgroups2 } from '#host/cgroup/cgroup-tree.ts';
import { isThere } from '#host/file/files.ts';
import { printable } from '#base/guest-text.ts';
import { weaknesses } from '#host/jail/confinement.ts';
import { type Distribution, readDistribution, triedDistributions } from '#host/distribution.ts';
import { silentLog } from '#host/log/log.ts';
import { isInside } from '#host/inside-namespaces.ts';
import { run } from '#host/process/run.ts';
import type { AttachmentCheck, NetworkReadiness } from '#network/network.ts';
import { findOrphans } from '#sandbox/recovery/orphans.ts';
import { describeSetup } from '#setup/describe-setup.ts';
import { createProgress } from '#setup/progress.ts';
import { readReady } from '#setup/setup.ts';
import { probeAccelerator } from '#vm/qemu/accelerator-probe.ts';
import type { Configuration } from '../configuration/configuration.ts';
import { probeUid } from '../node/node.ts';
import { ordinaryUserFindings } from './doctor-ordinary-user.ts';
import { dashboardFindings } from './doctor-dashboard.ts';
import { podPartsFindings, updateFindings } from './doctor-updates.ts';
import { checkKvm } from './doctor-kvm.ts';
import { containerdFindings, delegateFindings } from './doctor-runtimes.ts';
import { containerdPlaces } from '../containerd/install-containerd.ts';
import { k3sPlaces } from '../containerd/install-k3s.ts';
import { openNetwork } from '../node/node-network.ts';
import { tryJail } from './try-jail.ts';

const minFreeBytes = 2 * 1024 ** 3;

interface DoctorWishes {
  readonly json: boolean;
  /** Checks only this. */
  readonly accelerator?: 'kvm' | undefined;
  /** Looks for newer versions over the network, which takes a while; default: true. */
  readonly asksArchives?: boolean;
}

/**
 * Runs `podvm doctor`: checks this host, or only its KVM. Changes only the stored verdict on the accelerator. For
 * an ordinary user it checks what the namespaces of that user need, and then continues in them.
 */
export async function doctorCommand(
  {
    config,
    version,
    write,
  }: { readonly config: Configuration; readonly version: string; readonly write: (line: string) => void },
  { json, accelerator: only, asksArchives = true }: DoctorWishes,
  signal: AbortSignal,
): Promise<{ text: string; isHealthy: boolean }> {
  if (process.getuid?.() !== 0) return conclude(await ordinaryUserFindings(config, only), json);
  if (only === 'kvm') {
    return conclude([rootFinding(), ...(await checkKvm(config, write, signal))], json);
  }
  const findings = [
    rootFinding(),
    distributionFinding(await readDistribution()),
    ...(await setup(config)),
    await accelerator(config, write, signal),
    await jail(config, signal),
    await tunDevice(),
    await network(config),
    await podPackets(config, signal),
    ...(await attachments(config, signal)),
    ...(await orphans(config)),
    ...(await containerdFindings(
      { shimSocketPath: config.shimSocketPath, version },
      { containerd: containerdPlaces, k3s: k3sPlaces },
      signal,
    )),
    ...(await delegateFindings(config.delegate, signal)),
    ...(await dashboardFindings(config)),
    await cgroups(),
    ...(await podPartsFindings(config)),
    ...(asksArchives && !isInside ? await updateFindings(config, write, signal) : []), // the parts are root's
    await capabilities(),
    await userNamespaces(),
    await disk(config.root),
    {
      name: 'machine',
      status: 'ok' as const,
      detail: `${availableParallelism()} cores, ${Math.round(totalmem() / 1024 ** 2)} MiB`,
    },
  ];
  return conclude(findings, json);
}

function conclude(findings: readonly Finding[], json: boolean): { text: string; isHealthy: boolean } {
  const diagnosis = diagnosisOf(findings);
  return { text: diagnosisText(diagnosis, json), isHealthy: diagnosis.isHealthy };
}

const rootFinding = (): Finding => ({
  name: 'user',
  status: 'ok',
  detail: isInside ? 'root of own namespaces' : 'root',
});

export function distributionFinding({ name, isTried }: Distribution): Finding {
  const title = 'distribution';
  if (isTried) return { name: title, status: 'ok', detail: name };
  const fix = `PodVM is tried on ${triedDistributions.map((tried) => tried.name).join(', ')}. On others, look at the other results.`;
  return { name: title, status: 'warn', detail: `PodVM has not been tried on ${printable(name, 200)}`, fix };
}

async function setup({ root, repo }: Configuration): Promise<readonly Finding[]> {
  return (await describeSetup(root, repo)).map(({ name, ok, detail, fix }): Finding => {
    return { name, status: ok ? 'ok' : 'fail', detail, ...(fix === undefined ? {} : { fix }) };
  });
}

/** Reports running machines that no podvm serves. */
async function orphans({ root }: Configuration): Promise<readonly Finding[]> {
  const name = 'machines';
  const found = await findOrphans(root);
  if (found.length === 0) return [{ name, status: 'ok', detail: 'no orphaned machines' }];
  return found.map(({ namespace, name: pod, pid }) => {
    const whose = pod === '' ? 'no pod' : `${printable(namespace)}/${printable(pod)}`;
    const detail = `the machine of ${whose} (process ${pid}) is running, but no podvm serves it`;
    const fix =
      "Start `podvm daemon`: it takes over a kubelet's pods and ends the others. Or end it with `podvm stop --orphaned`.";
    return { name, status: 'warn', detail, fix };
  });
}

async function accelerator(
  config: Configuration,
  write: (line: string) => void,
  ending: AbortSignal,
): Promise<Finding> {
  const name = 'accelerator';
  const assets = await readReady(config);
  if (assets === undefined)
    return { name, status: 'fail', detail: 'cannot be checked before set-up', fix: 'Run `podvm setup`.' };
  try {
    const request = { assets, directory: join(config.root, 'probe'), uid: probeUid, forced: config.accelerator };
    const signal = AbortSignal.any([ending, AbortSignal.timeout(180_000)]);
    const { accelerator: found, reason } = await createProgress(write).during('trying the accelerators', () =>
      probeAccelerator(request, signal),
    );
    if (found === 'kvm') return { name, status: 'ok', detail: `kvm: ${reason}` };
    return {
      name,
      status: 'warn',
      detail: `tcg (software emulation): ${reason}`,
      fix: 'Use a host with working KVM: pods start and run several times faster. `podvm doctor --accelerator kvm` says what is missing.',
    };
  } catch (error) {
    ending.throwIfAborted();
    return {
      name,
      status: 'fail',
      detail: messageOf(error),
      fix: 'Check the output of `podvm --log-level debug run FILE`.',
    };
  }
}

/** Checks a VMM in its jail from outside, before any guest has run in it. */
async function jail(config: Configuration, ending: AbortSignal): Promise<Finding> {
  const name = 'jail';
  const assets = await readReady(config);
  if (assets === undefined)
    return { name, status: 'fail', detail: 'cannot be checked before set-up', fix: 'Run `podvm setup`.' };
  const fix =
    'Check the results for cgroups, capabilities and user namespaces, which show what the host does not provide.';
  try {
    const found = await tryJail(
      assets,
      join(config.root, 'probe'),
      AbortSignal.any([ending, AbortSignal.timeout(30_000)]),
    );
    const lacking = weaknesses(found);
    if (lacking.length > 0) return { name, status: 'warn', detail: lacking.join('; '), fix };
    const { seccompFilters, namespaces } = found;
    const detail = `in force: user ${found.uid}, no capabilities, ${seccompFilters} system call filters, namespaces ${namespaces.join(' ')}`;
    return { name, status: 'ok', detail };
  } catch (error) {
    ending.throwIfAborted();
    // Other users may not read QEMU's program, so that the kernel hides its processes from roots of namespaces.
    if (isInside && (error as NodeJS.ErrnoException).code === 'EACCES')
      return { name, status: 'skip', detail: 'a VMM starts, and only root can look at its restrictions' };
    return { name, status: 'fail', detail: messageOf(error), fix };
  }
}

async function tunDevice(): Promise<Finding> {
  const name = '/dev/net/tun';
  if (!(await isThere(name)))
    return { name, status: 'fail', detail: 'missing', fix: 'Load the module tun: `modprobe tun`.' };
  return { name, status: 'ok', detail: 'there' };
}

/** Checks the network of a command, and of the daemon if it differs; an ordinary user has no daemon. */
async function network(config: Configuration): Promise<Finding> {
  const name = 'network';
  const purposes = isInside ? (['command'] as const) : (['command', 'daemon'] as const);
  const [ours, daemons = ours] = await Promise.all(
    purposes.map((purpose) => openNetwork(config, purpose, silentLog).readiness()),
  );
  const failed = [ours, daemons].find((readiness) => readiness?.isReady === false);
  if (failed?.isReady === false) {
    const { message: detail, fix } = failed;
    return { name, status: 'fail', detail, ...(fix === undefined ? {} : { fix }) };
  }
  const [own, ofDaemon] = [describeNetwork(ours), describeNetwork(daemons)];
  return { name, status: 'ok', detail: own === ofDaemon ? own : `${own}; of podvm daemon ${ofDaemon}` };
}

/** Reports how many packets of the built-in network's pods the node has dropped. */
async function podPackets(config: Configuration, signal: AbortSignal): Promise<Finding> {
  const name = 'pod packets';
  const dropped = await openNetwork(config, 'command', silentLog).droppedPackets(signal);
  if (dropped === undefined) return { name, status: 'ok', detail: 'no pod has used the built-in bridge' };
  if (dropped.size === 0) {
    return {
      name,
      status: 'warn',
      detail: 'packets of pods are not filtered: the built-in bridge has no nftables table',
      fix: 'Install the Debian package nftables; the kernel needs nf_tables and nft_connlimit. The next pod creates the table.',
    };
  }
  const of = (reason: string) => dropped.get(reason) ?? 0;
  const detail = `dropped since the creation of the bridge: ${of('loopback')} for loopback, ${of('connections')} of too many connections, ${of('services')} for services of the node`;
  return { name, status: 'ok', detail };
}

function describeNetwork(readiness: NetworkReadiness | undefined): string {
  if (readiness?.isReady !== true) return '';
  return readiness.path === undefined ? 'the built-in bridge' : `${readiness.name}, by ${readiness.path}`;
}

const checkMs = 120_000;

/** Reports the plugins' checks of all running pods, of any command or daemon. No verdict makes the host unhealthy. */
async function attachments(config: Configuration, ending: AbortSignal): Promise<Finding[]> {
  const name = 'attachments';
  try {
    const checks = await openNetwork(config, 'command', silentLog).check(
      AbortSignal.any([ending, AbortSignal.timeout(checkMs)]),
    );
    if (checks.length === 0) return [{ name, status: 'ok', detail: 'no pod is connected' }];
    return checks.map((check) => attachmentFinding(name, check));
  } catch (error) {
    ending.throwIfAborted();
    return [{ name, status: 'warn', detail: `cannot be checked: ${messageOf(error)}` }];
  }
}

function attachmentFinding(name: string, check: AttachmentCheck): Finding {
  const { podNamespace, podName, network: where, verdict, droppedFrames: dropped = 0 } = check;
  const frames = dropped === 'unfiltered' ? "its guest's frames are not filtered" : `${dropped} of its frames dropped`;
  const said = dropped === 0 ? check.detail : `${check.detail}; ${frames}`;
  const pod = `${printable(podNamespace)}/${printable(podName)} on ${where}`;
  if (verdict === 'well') return { name, status: 'ok', detail: `${pod}: ${said}` };
  if (verdict === 'unasked') return { name, status: 'ok', detail: `${pod}: not checked: ${said}` };
  const fix = 'Restart the pod unless it is ending. Plugins can be wrong: docs/limitations.md, "CHECK".';
  return { name, status: 'warn', detail: `${pod}: ${said}`, fix };
}

async function cgroups(): Promise<Finding> {
  const name = 'cgroups';
  if (await hasCgroups2()) return { name, status: 'ok', detail: 'version 2' };
  const isHybrid = await isThere('/sys/fs/cgroup/unified');
  return {
    name,
    status: 'warn',
    detail: `${isHybrid ? 'hybrid' : 'version 1'} on the host; guests always use version 2`,
    fix: 'No action is required for limits inside the guest. For version 2, boot with `systemd.unified_cgroup_hierarchy=1`.',
  };
}

/** Numbers from linux/capability.h. */
const wanted = {
  CAP_CHOWN: 0,
  CAP_KILL: 5,
  CAP_SETUID: 7,
  CAP_NET_ADMIN: 12,
  CAP_SYS_ADMIN: 21,
  CAP_SYS_RESOURCE: 24,
} as const;

async function capabilities(): Promise<Finding> {
  const name = 'capabilities';
  const status = await readFile('/proc/self/status', 'utf8');
  const mask = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? '0'}`);
  const missing = Object.entries(wanted)
    .filter(([, bit]) => (mask & (1n << BigInt(bit))) === 0n)
    .map(([word]) => word);
  if (missing.length === 0) return { name, status: 'ok', detail: 'all required ones' };
  const isFatal = missing.some((word) => word !== 'CAP_SYS_RESOURCE');
  return {
    name,
    status: isFatal ? 'fail' : 'warn',
    detail: `missing: ${missing.join(', ')}`,
    fix: 'Run podvm on the host itself, or add these capabilities to its container.',
  };
}

async function userNamespaces(): Promise<Finding> {
  const name = 'user namespaces';
  const flags = ['--reuid=65534', '--regid=65534', '--clear-groups', '--no-new-privs', '--bounding-set=-all'];
  try {
    await run('setpriv', [
      ...flags,
      'bwrap',
      '--unshare-all',
      '--ro-bind',
      '/usr',
      '/usr',
      '--ro-bind-try',
      '/lib64',
      '/lib64',
      '--symlink',
      'usr/lib',
      '/lib',
      '--symlink',
      'usr/bin',
      '/bin',
      '/usr/bin/true',
    ]);
    return { name, status: 'ok', detail: 'an unprivileged jail works' };
  } catch (error) {
    return {
      name,
      status: 'fail',
      detail: messageOf(error),
      fix: 'Allow unprivileged user namespaces: `sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=15000`.',
    };
  }
}

async function disk(root: string): Promise<Finding> {
  const name = 'disk';
  const { bavail, bsize } = await statfs((await isThere(root)) ? root : '/');
  const free = bavail * bsize;
  const detail = `${Math.round(free / 1024 ** 2)} MiB free for ${root}`;
  if (free >= minFreeBytes) return { name, status: 'ok', detail };
  return { name, status: 'warn', detail, fix: 'Free space, or choose another disk with --root.' };
}
