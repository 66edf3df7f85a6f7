/** One line of /proc/self/mountinfo (proc_pid_mountinfo(5)). */
export interface HostMount {
  /** `major:minor` of the file system. */
  readonly device: string;
  /** The mounted part of the file system: `/` is all of it. */
  readonly root: string;
  readonly point: string;
  readonly fileSystem: string;
  /** The mount or its file system is read-only. */
  readonly isReadOnly: boolean;
}

/** Mounts in the order in which they were made. Skips invalid lines: the file is the kernel's. */
export function parseMountInfo(text: string): readonly HostMount[] {
  return text.split('\n').flatMap((line): HostMount[] => {
    const fields = line.split(' ');
    const separator = fields.indexOf('-', 6); // ends the optional fields
    const [, , device, root, point, options = ''] = fields;
    const fileSystem = fields[separator + 1];
    if (separator < 0 || device === undefined || root === undefined) return [];
    if (point === undefined || fileSystem === undefined) return [];
    const isReadOnly = [options, fields[separator + 3] ?? ''].some((words) => words.split(',').includes('ro'));
    return [{ device, root: unescape(root), point: unescape(point), fileSystem, isReadOnly }];
  });
}

/** The topmost mount at exactly that path; undefined when it is not a mount point. */
export function mountAt(mounts: readonly HostMount[], path: string): HostMount | undefined {
  return mounts.findLast(({ point }) => point === path);
}

/** Whether the path is inside the directory, at any depth. */
export const isBelow = (path: string, directory: string): boolean =>
  path !== directory && path.startsWith(directory === '/' ? '/' : `${directory}/`);

/** The kernel writes blank, tab, newline and backslash in octal. */
const unescape = (text: string) =>
  text.replaceAll(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
