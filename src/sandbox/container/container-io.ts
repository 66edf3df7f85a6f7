import { mkdir, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import type { LinkStream } from '#link/link.ts';
import { createNanoClock } from '../log/log-format.ts';
import { recoverLogPosition, type LoggedBytes } from '../log/log-position.ts';
import { logPathOf, openLogWriter, rotatedNumbers, type LogFile } from '../log/log-writer.ts';
import { pumpOutput, type Output } from '../log/output.ts';
import type { Parts, Surroundings } from '../parts.ts';
import type { ContainerRecords } from './container-record.ts';
import type { ContainerHome } from './container-home.ts';
import type { GuestContainer } from './guest-container.ts';
import { openOutputStream, openStream } from './open-stream.ts';

export interface ContainerIoSite extends Pick<ContainerHome, 'guest' | 'limits' | 'log'> {
  /** Directory of the sandbox. */
  readonly directory: string;
  readonly records?: ContainerRecords;
  readonly surroundings: Surroundings;
  readonly parts: Pick<Parts, 'openFifos'>;
}

/** The host's ends of a container's standard streams, connected to its log. Disposing closes them. */
export interface ContainerIo extends AsyncDisposable {
  readonly stdin: LinkStream | undefined;
  /** Stream numbers for the call that connects them to the process. */
  readonly stdio: { readonly stdin: number; readonly stdout: number; readonly stderr: number };
  readonly output: Output;
  /** Bytes that its log has from an earlier process; undefined when unknown. */
  readonly logged: LoggedBytes | undefined;
  reopenLog(): Promise<void>;
}

type Whose = Pick<GuestContainer, 'id' | 'spec'>;

/** `logged`: bytes that the log has from an earlier process; default: none. */
export async function openContainerIo(
  { id, spec }: Whose,
  site: ContainerIoSite,
  logged?: LoggedBytes,
): Promise<ContainerIo> {
  await using undo = new AsyncDisposableStack();
  const fifos = spec.outputFifos && undo.use(await site.parts.openFifos(spec.outputFifos));
  const log = fifos ?? undo.use(await openContainerLog({ id, spec }, site, logged));
  // Open and silent until a client attaches, as a container with `stdin: true` expects.
  const stdin = spec.stdin ? openStream(site.guest) : undefined;
  const stdout = openOutputStream(site.guest, { acknowledges: true });
  const stderr = spec.tty ? undefined : openOutputStream(site.guest, { acknowledges: true });
  undo.defer(() => {
    for (const stream of [stdin, stdout, stderr]) stream?.destroy();
  });
  const output = pumpOutput({ stdout, ...(stderr === undefined ? {} : { stderr }) }, log, (error) =>
    site.log.error('log cannot be written', error, { container: spec.name }),
  );
  const owned = undo.move();
  return {
    stdin,
    stdio: { stdin: stdin?.id ?? 0, stdout: stdout.id, stderr: stderr?.id ?? 0 },
    output,
    logged: fifos === undefined ? logged : fifos.logged,
    reopenLog: () => ('reopen' in log ? log.reopen() : Promise.resolve()),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

async function openContainerLog(
  { id, spec }: Whose,
  { directory, limits, surroundings, records }: ContainerIoSite,
  logged: LoggedBytes | undefined,
): Promise<LogFile> {
  const path = logPathOf(directory, spec);
  const isOurs = spec.logPath === undefined;
  const tooOld = isOurs ? spec.attempt - limits.maxOldLogs - 1 : -1;
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o750 });
    if (tooOld >= 0) {
      const old = logPathOf(directory, { ...spec, attempt: tooOld });
      const aside = (await rotatedNumbers(old)).map((number) => `${old}.${number}`);
      await Promise.all([old, ...aside].map((file) => rm(file, { force: true })));
    }
    const clock = createNanoClock(surroundings.nowMs, surroundings.monotonicNs);
    const positionPath = await records?.logPositionPath(id);
    return await openLogWriter(path, clock, {
      ...(isOurs ? { limits: limits.logs } : {}),
      ...(positionPath === undefined ? {} : { positionPath }),
      ...(logged === undefined ? {} : { logged }),
    });
  } catch (cause) {
    throw new PodvmError('internal', `Cannot open the log of container ${spec.name}`, { cause });
  }
}

/** Returns the bytes that an earlier process wrote to a container's log; undefined when unknown. */
export async function loggedOf(
  { id, spec }: Whose,
  { directory, records }: Pick<ContainerIoSite, 'directory'> & { readonly records: ContainerRecords },
): Promise<LoggedBytes | undefined> {
  if (spec.outputFifos !== undefined) return undefined; // they know it themselves
  return await recoverLogPosition(await records.logPositionPath(id), logPathOf(directory, spec));
}
