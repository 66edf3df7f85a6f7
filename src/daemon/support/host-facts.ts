import { readFile } from 'node:fs/promises';

/** Files of the host's kernel that show what machines depend on, without names of users, arguments or variables. */
const files = [
  '/proc/version',
  '/etc/os-release',
  '/proc/uptime',
  '/proc/loadavg',
  '/proc/meminfo',
  '/proc/pressure/cpu',
  '/proc/pressure/memory',
  '/proc/pressure/io',
  '/proc/swaps',
  '/sys/fs/cgroup/cgroup.controllers',
  '/sys/fs/cgroup/cgroup.subtree_control',
  '/proc/self/cgroup',
  '/proc/sys/vm/overcommit_memory',
  '/proc/sys/user/max_user_namespaces',
  '/proc/sys/net/ipv4/ip_forward',
] as const;
const maxChars = 16 * 1024;

/** What the kernel says of the host, file by file. */
export async function hostFacts(): Promise<string> {
  const read = async (path: string) =>
    (await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => `${error.code}\n`)).slice(0, maxChars);
  const texts = await Promise.all(files.map(async (path) => `== ${path}\n${await read(path)}\n`));
  const [firstProcessor = ''] = (await read('/proc/cpuinfo')).split('\n\n');
  const modules = (await read('/proc/modules')).split('\n').map((line) => line.split(' ')[0]);
  return [...texts, `== first processor\n${firstProcessor}\n\n`, `== modules\n${modules.join(' ')}\n`].join('');
}
