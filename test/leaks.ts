import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '#host/process/run.ts';

/**
 * Names by which traces of a PodVM are found on a host: its directory, and the ids of its sandboxes and machines. So
 * other PodVMs may run beside a test, and their resources are not mistaken for leaks.
 */
export interface Belongings {
  /** State directory; its files are listed too, unless there is none. */
  readonly directory?: string;
  readonly ids: readonly string[];
}

/** Name under which each sandbox's CNI rules are kept: our default network. */
const networkName = 'podvm';

/** Lists existing traces, one line each, sorted; files are relative to the directory. */
export async function tracesOf(ours: Belongings): Promise<readonly string[]> {
  const found = await Promise.all([
    processes(ours),
    openFiles(ours),
    namespaces(ours),
    links(ours),
    mounts(ours),
    cgroups(ours),
    loopDevices(ours),
    firewallRules(ours),
    files(ours),
  ]);
  return found.flat().sort();
}

/** Fails if there are traces that were not in `before`, and lists them. */
export async function assertNothingLeaked(ours: Belongings, before: readonly string[]): Promise<void> {
  const now = await tracesOf(ours);
  assert.deepEqual(
    now.filter((line) => !before.includes(line)),
    [],
    'left behind',
  );
}

function isOurs(text: string, { directory, ids }: Belongings): boolean {
  if (directory !== undefined && new RegExp(`${RegExp.escape(directory)}(?:[/\\s"',:]|$)`).test(text)) return true;
  return ids.some((id) => text.includes(id));
}

/** Processes that name it in their arguments, mounts or control group, and all children of this process. */
async function processes(ours: Belongings): Promise<string[]> {
  const [ourMounts, hostMounts] = await Promise.all(['self', '1'].map((pid) => link(`/proc/${pid}/ns/mnt`)));
  const pids = (await readdir('/proc')).filter((name) => /^[0-9]+$/.test(name) && name !== String(process.pid));
  const lines = await Promise.all(
    pids.map(async (pid) => {
      const texts = await Promise.all(['cmdline', 'mountinfo', 'cgroup'].map((file) => read(`/proc/${pid}/${file}`)));
      const command = (texts[0] ?? '').replaceAll('\0', ' ').slice(0, 120);
      // The mounts of our own mount namespace, and of the host's, are those of every process in it.
      const mountNamespace = await link(`/proc/${pid}/ns/mnt`);
      const isJailed = mountNamespace !== ourMounts && mountNamespace !== hostMounts;
      const tells = isJailed ? texts.join('\n') : `${texts[0]}\n${texts[2]}`;
      return isOurs(tells.replaceAll('\0', ' '), ours) ? [`process ${pid} ${command}`] : [];
    }),
  );
  return lines.flat();
}

/** Descriptors of this very process. */
async function openFiles(ours: Belongings): Promise<string[]> {
  const targets = await Promise.all((await readdir('/proc/self/fd')).map((fd) => link(`/proc/self/fd/${fd}`)));
  return targets.filter((target) => isOurs(target, ours)).map((target) => `open ${target}`);
}

async function namespaces({ ids }: Belongings): Promise<string[]> {
  const names = await readdir('/run/netns').catch(() => []);
  return names.filter((name) => ids.some((id) => name.endsWith(id))).map((name) => `netns ${name}`);
}

/** Bridges are named by their alias, taps and veths hang in the namespaces; a veth's host end names its namespace. */
async function links(ours: Belongings): Promise<string[]> {
  const { stdout } = await run('ip', ['-o', 'link', 'show']);
  return stdout.split('\n').flatMap((line) => {
    const name = /^\d+: ([^:@]+)/.exec(line)?.[1] ?? '';
    return isOurs(line, ours) ? [`link ${name}`] : [];
  });
}

async function mounts(ours: Belongings): Promise<string[]> {
  const lines = (await read('/proc/self/mounts')).split('\n');
  return lines.filter((line) => isOurs(line, ours)).map((line) => `mount ${line}`);
}

async function cgroups({ ids }: Belongings): Promise<string[]> {
  const { stdout } = await run('find', ['/sys/fs/cgroup', '-mindepth', '1', '-maxdepth', '5', '-type', 'd'], {
    okCodes: [0, 1], // directories go while it looks
  });
  return stdout
    .split('\n')
    .filter((path) => ids.some((id) => path.includes(id)))
    .map((path) => `cgroup ${path}`);
}

async function loopDevices(ours: Belongings): Promise<string[]> {
  const { stdout } = await run('losetup', ['--all', '--noheadings', '--output', 'NAME,BACK-FILE']);
  return stdout
    .split('\n')
    .filter((line) => isOurs(line, ours))
    .map((line) => `loop ${line}`);
}

/**
 * Rules that name an id, and the chains the plugins make per sandbox: `CNI-` and the hash of network and container
 * (containernetworking/plugins, pkg/utils/utils.go), which may outlive the rule that jumps there.
 */
async function firewallRules(ours: Belongings): Promise<string[]> {
  const containers = ours.ids.flatMap((id) => [id, `sb-${id}`]);
  const chains = containers.flatMap((id) => {
    const hash = createHash('sha512').update(`${networkName}${id}`).digest('hex');
    return ['CNI-', 'CNI-DN-', 'CNI-SN-'].map((prefix) => `${prefix}${hash}`.slice(0, 28));
  });
  const isMeant = (line: string) => isOurs(line, ours) || chains.some((chain) => line.includes(chain));
  const tables = [
    ['iptables', 'nat'],
    ['iptables', 'filter'],
    ['ip6tables', 'nat'],
    ['ip6tables', 'filter'],
  ] as const;
  const found = await Promise.all(
    tables.map(async ([program, table]) => {
      const { stdout } = await run(program, ['-w', '10', '-t', table, '-S'], { okCodes: [0, 1, 2, 3, 4] });
      return stdout.split('\n').filter(isMeant);
    }),
  );
  return found.flat().map((line) => `rule ${line}`);
}

async function files({ directory }: Belongings): Promise<string[]> {
  if (directory === undefined) return [];
  const entries = await readdir(directory, { recursive: true }).catch(() => []);
  return entries.map((entry) => `file ${join('.', entry)}`);
}

async function read(path: string): Promise<string> {
  return await readFile(path, 'utf8').catch(() => ''); // it ended meanwhile
}

async function link(path: string): Promise<string> {
  return await readlink(path).catch(() => '');
}
