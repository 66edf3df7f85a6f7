import type { Container, ContainerSpec, Sandbox } from '#sandbox/sandbox.ts';
import { containerSpec } from '#sandbox/testing/examples.ts';

const minute = () => AbortSignal.timeout(60_000);

let scripts = 0;

/** Makes a container of the base image that runs a shell script, under a name of its own. */
async function createScript(sandbox: Sandbox, script: string, more: Partial<ContainerSpec>): Promise<Container> {
  const name = `c${(scripts += 1)}`;
  const base = { image: 'localhost/podvm/base:latest', command: ['sh', '-c', script] };
  return await sandbox.createContainer({ ...containerSpec, ...base, name, ...more }, minute());
}

export async function startScript(
  sandbox: Sandbox,
  script: string,
  more: Partial<ContainerSpec> = {},
): Promise<Container> {
  const container = await createScript(sandbox, script, more);
  await container.start(minute());
  return container;
}

/** Runs a script to its end, with all of its output. */
export async function runScript(sandbox: Sandbox, script: string, more: Partial<ContainerSpec> = {}) {
  const container = await createScript(sandbox, script, more);
  const chunks: Buffer[] = [];
  const follower = container.follow(async ({ bytes }) => void chunks.push(Buffer.from(bytes)));
  await container.start(minute());
  const { exitCode, message } = await container.exited;
  await follower.ended;
  return { exitCode, message, output: Buffer.concat(chunks).toString() };
}

/** Runs a command in a container, and discards its output. */
export async function execute(container: Container, command: readonly string[] = ['true']) {
  const exec = await container.exec({ command, tty: false, stdin: false }, minute());
  exec.stdout.resume();
  exec.stderr?.resume();
  return await exec.exited;
}
