import { messageOf } from '#base/errors.ts';

/** The argv that runs a bundle as a container of that name, in the foreground. */
export type CrunCommand = (bundle: string, id: string) => readonly string[];

export const crunCommands: readonly CrunCommand[] = [
  (bundle, id) => ['crun', '--cgroup-manager=disabled', 'run', '--bundle', bundle, id],
  // crun refuses hosts with both versions of cgroups: this hides one of them.
  (bundle, id) => {
    const script = 'umount /sys/fs/cgroup/unified; exec crun --cgroup-manager=disabled run --bundle "$1" "$2"';
    return ['unshare', '--mount', 'sh', '-c', script, 'sh', bundle, id];
  },
];

/** Returns the first command that works here. Errors: `AggregateError` of all errors, with the last message. */
export async function firstWorking<Command>(
  commands: readonly Command[],
  tryOut: (command: Command) => Promise<unknown>,
): Promise<Command> {
  const reasons: unknown[] = [];
  for (const command of commands) {
    try {
      await tryOut(command);
      return command;
    } catch (error) {
      reasons.push(error);
    }
  }
  throw new AggregateError(reasons, messageOf(reasons.at(-1)));
}
