import { join } from 'node:path';
import { entryPoint, programDirectory } from '#host/program-files.ts';
import { dropToImageUser } from './image-user.ts';

export interface ImportJail {
  /** The one writable directory, owned by the jail's user. */
  readonly work: string;
  /** A directory that it sees as `/layers` while others fill it; default: none. */
  readonly layers?: string;
  /** Memory of each process in the jail, without the program itself. */
  readonly memoryBytes: number;
  readonly maxFileBytes: number;
  /** The descriptor from which the list of system calls is read. */
  readonly calls: number;
  /** The descriptor from which the program is read; default: it is the release's. */
  readonly program?: number;
}

/** Files of a release that the program needs. */
const released = ['src', 'package.json'];
const cpuSeconds = 1800;
/** Limit of descriptors, enough for the layers of an image and Node itself. */
const maxDescriptors = 1024;
/** V8 may use half of the memory for objects; the rest is for buffers and the stack. */
const heapPart = 0.5;
const bytesPerMiB = 1024 ** 2;

/**
 * Returns the whole command. First, root makes the namespaces, so that a program below a closed directory can be
 * mounted; inside, an unprivileged user without capabilities sees programs, podvm's program and `work`. A user
 * namespace, after which no other can be made, and the list of system calls come last.
 */
export function jailedImport(jail: ImportJail): readonly string[] {
  const { work, layers, memoryBytes, maxFileBytes, calls, program } = jail;
  const heapMiB = Math.floor((memoryBytes * heapPart) / bytesPerMiB);
  const show = (path: string, at = path) => ['--ro-bind', path, at];
  const showOurs = (path: string) => show(join(programDirectory, path), join('/podvm', path));
  const given = ['--perms', '0444', '--ro-bind-data', String(program), '/podvm/reader.mjs'];
  const main = program === undefined ? entryPoint('src/image/import/main') : 'reader.mjs';
  return [
    ...['prlimit', `--cpu=${cpuSeconds}`, '--core=0', `--fsize=${maxFileBytes}`, `--nofile=${maxDescriptors}`],
    ...[`--data=${memoryBytes}`, '--memlock=65536', '--msgqueue=0', '--'],
    ...['choom', '-n', '1000', '--'], // when the host runs out of memory, this process is killed instead of a pod
    ...['bwrap', '--unshare-ipc', '--unshare-net', '--unshare-pid', '--unshare-uts', '--unshare-cgroup-try'],
    ...['--new-session', '--die-with-parent', '--clearenv', '--setenv', 'PATH', '/usr/bin', '--hostname', 'import'],
    ...[...show('/usr'), '--symlink', 'usr/bin', '/bin', '--symlink', 'usr/lib', '/lib', '--symlink', 'usr/lib64'],
    ...['/lib64', '--proc', '/proc', '--dev', '/dev'],
    ...['/tmp', '/podvm'].flatMap((path) => ['--perms', '0755', '--dir', path]),
    ...show(process.execPath, '/podvm/node'),
    ...(program === undefined ? released.flatMap(showOurs) : given),
    ...(layers === undefined ? [] : show(layers, '/layers')),
    ...['--bind', work, '/work', '--remount-ro', '/', '--chdir', '/work', '--'],
    ...['setpriv', ...dropToImageUser, '--'],
    ...['bwrap', '--unshare-user', '--disable-userns', '--die-with-parent', '--dev-bind', '/', '/'],
    ...['--seccomp', String(calls), '--'],
    ...['/podvm/node', `--max-old-space-size=${heapMiB}`, join('/podvm', main)],
  ];
}
