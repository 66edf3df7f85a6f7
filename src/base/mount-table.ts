/** One line of /proc/self/mountinfo (proc_pid_mountinfo(5)). */
export interface HostMount {
  /** `major:minor` of the file system. */
  readonly device: string;
  /** What of the file system is mounted: `/` is all of it. */
  readonly root: string;
  readonly point: string;
  readonly fileSystem: string;
}

/** In the order in which they were made. Lines that are none are left out: the file is the kernel's. */
export function parseMountInfo(text: string): readonly HostMount[] {
  return text.split('\n').flatMap((line): HostMount[] => {
    const fields = line.split(' ');
    const separator = fields.indexOf('-', 6); // optional fields end with it
    const [, , device, root, point] = fields;
    const fileSystem = fields[separator + 1];
    if (separator < 0 || device === undefined || root === undefined) return [];
    if (point === undefined || fileSystem === undefined) return [];
    return [{ device, root: unescape(root), point: unescape(point), fileSystem }];
  });
}

/** What is mounted at just that path, the uppermost; undefined if it is no mount point. */
export function mountAt(mounts: readonly HostMount[], path: string): HostMount | undefined {
  return mounts.findLast(({ point }) => point === path);
}

/** Whether the path is that of something in the directory, at any depth. */
export const isBelow = (path: string, directory: string): boolean =>
  path !== directory && path.startsWith(directory === '/' ? '/' : `${directory}/`);

/** The kernel writes blank, tab, newline and backslash in octal. */
const unescape = (text: string) =>
  text.replaceAll(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
