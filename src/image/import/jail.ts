import { join } from 'node:path';
import { dropToNobody } from './nobody.ts';

export interface ImportJail {
  /** The one directory that can be written to; nobody's. */
  readonly work: string;
  /** Where mkfs.erofs is; absent: the job needs none. */
  readonly sysroot: string | undefined;
  /** Of each process in it, without the program itself. */
  readonly memoryBytes: number;
  /** Where there is no mkfs.erofs, which makes sparse files. */
  readonly maxFileBytes: number;
  /** The descriptor that its list of system calls is read from. */
  readonly calls: number;
}

const repository = join(import.meta.dirname, '../../..');
const program = '/podvm/src/image/import/main.ts';
const cpuSeconds = 1800;
/** How large mkfs.erofs makes its file at first, sparse, to put aside what it reads in the second half. */
const mkfsFileBytes = 2 * 1024 ** 4;
/** Layers of an image, and Node's own. */
const maxDescriptors = 1024;
/** Of this memory V8 may have half for objects; the rest is for buffers, the stack and mkfs.erofs. */
const heapPart = 0.5;
const bytesPerMiB = 1024 ** 2;

/**
 * The whole command: namespaces of its own, made by root, so that a repository below a closed directory can be shown; in
 * there nobody without capabilities, who sees programs, podvm's sources and `work`; then a user namespace, the last one
 * that can be made in there, and the list of system calls.
 */
export function jailedImport({ work, sysroot, memoryBytes, maxFileBytes, calls }: ImportJail): readonly string[] {
  const heapMiB = Math.floor((memoryBytes * heapPart) / bytesPerMiB);
  const show = (path: string, at = path) => ['--ro-bind', path, at];
  const showOurs = (path: string) => show(join(repository, path), join('/podvm', path));
  return [
    ...[
      'prlimit',
      `--cpu=${cpuSeconds}`,
      '--core=0',
      `--fsize=${sysroot === undefined ? maxFileBytes : mkfsFileBytes}`,
      `--nofile=${maxDescriptors}`,
    ],
    ...[`--data=${memoryBytes}`, '--memlock=65536', '--msgqueue=0', '--'],
    ...['choom', '-n', '1000', '--'], // where the host runs out of memory, this goes and no pod
    ...['bwrap', '--unshare-ipc', '--unshare-net', '--unshare-pid', '--unshare-uts', '--unshare-cgroup-try'],
    ...['--new-session', '--die-with-parent', '--clearenv', '--setenv', 'PATH', '/usr/bin', '--hostname', 'import'],
    ...[...show('/usr'), '--symlink', 'usr/bin', '/bin', '--symlink', 'usr/lib', '/lib', '--symlink', 'usr/lib64'],
    ...['/lib64', '--proc', '/proc', '--dev', '/dev'],
    ...['/tmp', '/sysroot', '/podvm', '/podvm/node_modules'].flatMap((path) => ['--perms', '0755', '--dir', path]),
    ...show(process.execPath, '/podvm/node'),
    ...['src', 'package.json', 'node_modules/valibot'].flatMap(showOurs),
    ...(sysroot === undefined ? [] : show(join(sysroot, 'usr'), '/sysroot/usr')),
    ...['--bind', work, '/work', '--remount-ro', '/', '--chdir', '/work', '--'],
    ...['setpriv', ...dropToNobody, '--'],
    ...['bwrap', '--unshare-user', '--disable-userns', '--die-with-parent', '--dev-bind', '/', '/'],
    ...['--seccomp', String(calls), '--'],
    ...['/podvm/node', `--max-old-space-size=${heapMiB}`, program],
  ];
}
