import { podOutcomeSchema, podSummarySchema } from '#api/pods.ts';
import type { Client } from '../client.ts';
import { podPath } from './pod-name.ts';
import { graceOf } from './pod-commands.ts';
import { tellIfLate } from '../terminal/progress-line.ts';
import { type Terminal, write } from '../terminal/terminal.ts';

export async function removeCommand(
  client: Client,
  pod: string,
  { force }: { readonly force: boolean },
  terminal: Terminal,
): Promise<void> {
  const removal = client.send('DELETE', `${podPath(pod)}?force=${force}`, undefined, podSummarySchema);
  const removed = await tellIfLate(removal, `removing ${pod}`, terminal);
  await write(terminal.stdout, `${removed.namespace}/${removed.name} removed\n`);
}

/** Starts a pod that has ended, or restarts any. */
export async function startCommand(
  client: Client,
  pod: string,
  verb: 'start' | 'restart',
  options: { readonly grace?: string },
  terminal: Terminal,
): Promise<void> {
  const body = verb === 'restart' ? graceOf(options) : {};
  const start = client.send('POST', `${podPath(pod)}/${verb}`, body, podSummarySchema);
  const started = await tellIfLate(start, `${verb}ing ${pod}`, terminal);
  await write(terminal.stdout, `${started.namespace}/${started.name} ${verb}ed\n`);
}

/** Freezes the machine of a pod, or lets it run again. */
export async function pauseCommand(
  client: Client,
  pod: string,
  verb: 'pause' | 'unpause',
  { stdout }: Terminal,
): Promise<void> {
  const { namespace, name } = await client.send('POST', `${podPath(pod)}/${verb}`, {}, podSummarySchema);
  await write(stdout, `${namespace}/${name} ${verb}d\n`);
}

export async function renameCommand(client: Client, pod: string, name: string, { stdout }: Terminal): Promise<void> {
  const renamed = await client.send('POST', `${podPath(pod)}/rename`, { name }, podSummarySchema);
  await write(stdout, `${renamed.namespace}/${renamed.name} renamed\n`);
}

/** Waits for the end of a pod and prints its exit code, as docker and podman do. */
export async function waitCommand(client: Client, pod: string, { stdout }: Terminal): Promise<void> {
  const { exitCode } = await client.get(`${podPath(pod)}/wait`, podOutcomeSchema);
  await write(stdout, `${exitCode}\n`);
}
