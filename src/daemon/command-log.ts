import { createLog, type Log } from '#host/log.ts';
import type { Configuration } from './configuration.ts';

/** The log of what does not run as a service, whose lines a person or a file gets. */
export const commandLog = (
  { logLevel, logFormat }: Pick<Configuration, 'logLevel' | 'logFormat'>,
  write: (line: string) => void,
): Log => createLog(logLevel, write, { format: logFormat, hasPriority: false });
