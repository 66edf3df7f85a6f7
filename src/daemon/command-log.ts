import { createLog, type Log } from '#host/log/log.ts';
import type { Configuration } from './configuration/configuration.ts';

/** The log of a process that is not a service. Its lines go to a person or a file. */
export const commandLog = (
  { logLevel, logFormat }: Pick<Configuration, 'logLevel' | 'logFormat'>,
  write: (line: string) => void,
): Log => createLog(logLevel, write, { format: logFormat, hasPriority: false });
