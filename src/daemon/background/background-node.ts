import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { kindOf } from '#base/errors.ts';
import { boundLog } from '#host/log/bound-log.ts';
import { readFileIfThere, replaceFile } from '#host/file/files.ts';
import type { Log } from '#host/log/log.ts';
import { identify, isRunning, processIdentitySchema } from '#host/process/process-identity.ts';
import { poll, retry } from '#host/wait.ts';
import { commandLog } from '../command-log.ts';
import type { Configuration } from '../configuration/configuration.ts';
import type { DaemonProcess } from '../daemon-process.ts';
import { type Node, type NodeServing, openNode } from '../node/node.ts';
import { requireRoot } from './serve-here.ts';
import { createProgress } from '#setup/progress.ts';
import { ensureAssets, templateTask } from '../setup-command.ts';

/** Output of a node in the background. */
export const backgroundLogPath = ({ root }: Configuration): string => join(root, 'node.log');
/** File that identifies its process while it serves. */
const readyPath = ({ root }: Configuration): string => join(root, 'node.ready');

const lookEveryMs = 50;
/** Time in which an earlier node must end, in `ms`. */
const patienceMs = 60_000;
/** Signals that end the node: with its pods, or without them. */
const ends = { withPods: 'SIGINT', alone: 'SIGTERM' } as const;

/**
 * Runs `podvm daemon --background`: the node that `podvm run` needs, without CRI. It ends when it has been idle for a
 * while; on SIGTERM or SIGQUIT, which leave its pods to the next node; or on SIGINT, which ends the pods first. Errors:
 * `denied` without root, and those of set-up and node.
 */
export async function backgroundCommand(
  config: Configuration,
  itself: DaemonProcess,
  serving: Pick<NodeServing, 'serveCommand'> = {},
): Promise<void> {
  requireRoot('run pods');
  const write = (text: string) => itself.stderr.write(text);
  const stop = new AbortController();
  let endsPods = false;
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGQUIT']) {
    itself.on(signal, () => {
      endsPods ||= signal === ends.withPods;
      stop.abort();
    });
  }
  itself.on('SIGHUP', () => undefined); // the node belongs to no terminal
  using _bound = boundLog(backgroundLogPath(config));
  const assets = await ensureAssets(config, write, stop.signal);
  const log = commandLog(config, write);
  const opened = () => openNode(config, assets, log, stop.signal, 'background', serving);
  // A predecessor that is ending refuses clients before it releases the state directory.
  const isBusy = (error: unknown) => kindOf(error) === 'busy';
  await using node = await retry(opened, isBusy, { everyMs: lookEveryMs, forMs: patienceMs, signal: stop.signal });
  await createProgress(write).during(templateTask, () => warmUp(node, log, stop.signal));
  await using _ready = await announceReady(config);
  await node.idleFor(config.idleMs, stop.signal);
  log.info('ending');
  if (endsPods) await node.endPods();
}

async function warmUp(node: Node, log: Log, signal: AbortSignal): Promise<void> {
  await node.warmUp(signal).catch((error: unknown) => {
    if (!signal.aborted) log.error('no template: pods boot one by one', error);
  });
}

/** `parent`: the process that has started it. Nodes of earlier versions do not say so. */
const readySchema = v.object({ ...processIdentitySchema.entries, parent: v.exactOptional(v.number()) });
type ReadyNode = Readonly<v.InferOutput<typeof readySchema>>;

async function announceReady(config: Configuration): Promise<AsyncDisposable> {
  const path = readyPath(config);
  await replaceFile(path, JSON.stringify({ ...(await identify(process.pid)), parent: process.ppid }));
  return { [Symbol.asyncDispose]: () => rm(path, { force: true }) };
}

/** Returns the process of this state directory's background node if the node is ready. */
export async function findBackgroundNode(config: Configuration): Promise<ReadyNode | undefined> {
  const text = await readFileIfThere(readyPath(config));
  if (text === undefined) return undefined;
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), readySchema), text);
  return parsed.success && (await isRunning(parsed.output)) ? parsed.output : undefined;
}

/** Ends the background node, if there is one, with its pods or without them. Waits at most a minute. */
export async function endBackgroundNode(
  config: Configuration,
  how: keyof typeof ends,
  signal: AbortSignal,
): Promise<void> {
  const found = await findBackgroundNode(config);
  if (found === undefined) return;
  process.kill(found.pid, ends[how]);
  const isGone = async () => ((await isRunning(found)) ? undefined : true);
  await poll(isGone, { everyMs: lookEveryMs, signal: AbortSignal.any([signal, AbortSignal.timeout(patienceMs)]) });
}
