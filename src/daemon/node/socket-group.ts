import { PodvmError } from '#base/errors.ts';
import { run } from '#host/process/run.ts';

/** Returns the id of a group of the host; undefined for none. Errors: `notFound`. */
export async function groupId(name: string | undefined): Promise<number | undefined> {
  if (name === undefined) return undefined;
  const { stdout } = await run('getent', ['group', name], { okCodes: [0, 2] });
  const id = /^[^:\n]+:[^:\n]*:(\d+):/.exec(stdout)?.[1];
  if (id !== undefined) return Number(id);
  throw new PodvmError('notFound', `Cannot give the socket to the group ${name}: there is no such group`, {
    fix: `Make it with \`groupadd ${name}\`, or leave socketGroup out.`,
  });
}
