import { readFile, stat } from 'node:fs/promises';
import * as v from 'valibot';
import { diagnosisSchema, type Finding } from '#api/finding.ts';
import { messageOf } from '#base/errors.ts';
import { run } from '#host/process/run.ts';
import type { Configuration } from '../configuration/configuration.ts';
import { settings } from '../configuration/settings.ts';
import { hostLimits } from './doctor-host-limits.ts';
import { hostNeeds, userName } from '../rootless/host-needs.ts';
import { machineAssets } from '../rootless/machine-assets.ts';
import { runInside } from '../rootless/run-inside.ts';

/**
 * Checks what pods of an ordinary user need of the host (`src/daemon/rootless/`), and if all is there, all that a doctor checks
 * as root of the namespaces of this user. `only`: checks only that.
 */
export async function ordinaryUserFindings(
  config: Configuration,
  only: 'kvm' | undefined,
): Promise<readonly Finding[]> {
  if (config.root === settings.root.default) {
    const detail = `${userName()}, a member of the group that may use root's node at ${config.socketPath}`;
    return [
      { name: 'user', status: 'ok', detail },
      { name: 'host', status: 'skip', detail: 'only root can examine it' },
    ];
  }
  const detail = `${userName()}, not root: pods run in namespaces of this user`;
  const user: Finding = { name: 'user', status: 'ok', detail };
  const found = only === undefined ? [user, ...(await hostFindings(config))] : [user, ...(await hostNeeds())];
  if (found.some(({ status }) => status === 'fail')) return found;
  const names = new Set(found.map(({ name }) => name));
  const inside = await findingsInside(config, only === undefined ? [] : ['--accelerator', only]);
  return [...found, ...inside.filter(({ name }) => !names.has(name))];
}

async function hostFindings({ repo, root, diskBytesPerSecond }: Configuration): Promise<readonly Finding[]> {
  return [
    ...(await hostNeeds()),
    await ownNamespaces(),
    await openDevice('/dev/net/tun', 'fail', 'taps of pods need it'),
    await openDevice('/dev/kvm', 'warn', 'without it, pods are emulated'),
    await parts(repo),
    await hostLimits(root, diskBytesPerSecond !== undefined),
  ];
}

/** Asks a doctor inside. */
async function findingsInside(config: Configuration, words: readonly string[]): Promise<readonly Finding[]> {
  try {
    const { stdout } = await runInside(config, ['doctor', '--json', ...words], true);
    return v.parse(v.pipe(v.string(), v.parseJson(), diagnosisSchema), stdout).findings;
  } catch (error) {
    return [{ name: 'namespaces', status: 'fail', detail: `nothing can be checked in them: ${messageOf(error)}` }];
  }
}

async function ownNamespaces(): Promise<Finding> {
  const name = 'user namespaces';
  const trial = [
    '--user',
    '--map-root-user',
    '--map-auto',
    '--mount',
    '--net',
    'mount',
    '-t',
    'tmpfs',
    'tmpfs',
    '/mnt',
  ];
  try {
    await run('unshare', trial);
    return { name, status: 'ok', detail: 'this user may make them' };
  } catch (error) {
    const restricts = '/proc/sys/kernel/apparmor_restrict_unprivileged_userns';
    const isRestricted = (await readFile(restricts, 'latin1').catch(() => '')).trim() === '1';
    const fix = isRestricted
      ? 'Run `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` as root.'
      : 'Correct the results above first, then see the sysctls user.max_user_namespaces and kernel.unprivileged_userns_clone.';
    return { name, status: 'fail', detail: messageOf(error), fix };
  }
}

/** VMMs are other users than their starter, so that the device must be open to all. */
async function openDevice(path: string, otherwise: 'fail' | 'warn', purpose: string): Promise<Finding> {
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) return { name: path, status: otherwise, detail: `missing: ${purpose}` };
  if ((found.mode & 0o006) === 0o006) return { name: path, status: 'ok', detail: 'open to all users' };
  const detail = `not open to all users, got mode ${(found.mode & 0o777).toString(8)}: ${purpose}`;
  return {
    name: path,
    status: otherwise,
    detail,
    fix: `Run \`chmod 0666 ${path}\` as root; a udev rule makes it last.`,
  };
}

async function parts(repo: string): Promise<Finding> {
  const name = 'assets';
  const fix = 'Run `podvm setup` as root, once for all users.';
  try {
    const { qemuVersion, kernelVersion, crunVersion } = await machineAssets(repo);
    return { name, status: 'ok', detail: `QEMU ${qemuVersion}, kernel ${kernelVersion}, crun ${crunVersion}` };
  } catch (error) {
    return { name, status: 'fail', detail: messageOf(error), fix };
  }
}
