import { run } from '#host/process/run.ts';

/** Users of a host without access to PodVM: that of many services, and a person's. */
export const otherUsers = [65_534, 1000] as const;

/** Prints those of its input's paths that it may open, or connect to. */
const tryAll = `
  use Fcntl;
  while (my $path = <STDIN>) {
    chomp $path;
    print "$path\\n" if sysopen(my $file, $path, O_RDONLY | O_NONBLOCK) or (-S $path and -w _);
  }
`;

const asUser = (uid: number) => [`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', '--'];

/** All entries below a directory, except links and their targets, with their modes. */
export async function filesBelow(
  directory: string,
): Promise<readonly { readonly path: string; readonly mode: number }[]> {
  const words = [directory, '-mindepth', '1', '-not', '-type', 'l', '-printf', '%m %P\n'];
  const { stdout } = await run('find', words, { okCodes: [0, 1] }); // files go meanwhile
  return [...stdout.matchAll(/^(\d+) (.*)$/gm)].map(([, mode = '', path = '']) => ({
    path,
    mode: Number.parseInt(mode, 8),
  }));
}

/** Paths below a directory that the user may open, relative to it. */
export async function openTo(uid: number, directory: string): Promise<readonly string[]> {
  const input = (await filesBelow(directory)).map(({ path }) => `${directory}/${path}\n`).join('');
  const { stdout } = await run('setpriv', [...asUser(uid), 'perl', '-e', tryAll], { input });
  return stdout
    .split('\n')
    .filter((path) => path !== '')
    .map((path) => path.slice(directory.length + 1));
}

/** Whether the user may send signals to a process. */
export async function maySignal(uid: number, pid: number): Promise<boolean> {
  const { code } = await run('setpriv', [...asUser(uid), 'sh', '-c', `kill -0 ${pid}`], { okCodes: 'any' });
  return code === 0;
}
