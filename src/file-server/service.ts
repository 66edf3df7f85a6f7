import type { Timers, Descriptors, Runtime } from '#engine/engine.ts';
import type { Powers } from './powers.ts';
import type { Counted } from './request-figures.ts';
import type { Served } from './served.ts';
import type { Flushes } from './flushes.ts';
import type { Locks } from './locks.ts';
import type { Reply, Request } from './message.ts';
import type { Nodes } from './nodes.ts';
import type { OpenFiles } from './open-files.ts';

/** Calls of the file server's program. */
export type FileServerEngine = Timers & Descriptors & Runtime & Served & Powers & Counted;

export type ServerEngine = Pick<
  FileServerEngine,
  keyof (Served & Descriptors & Timers & Counted) | 'print' | 'actAs' | 'fileSystemOf'
>;

/** Bytes of the reply's body, or a negative errno. Undefined: there is no reply, or it comes later. */
export type Result = number | undefined;

/** Parts that answer requests. */
export interface Service {
  readonly engine: ServerEngine;
  readonly reply: Reply;
  readonly nodes: Nodes;
  readonly files: OpenFiles;
  readonly locks: Locks;
  readonly flushes: Flushes;
  /** Makes the function that answers a request later, when its message is no longer in memory. */
  readonly later: (request: Request) => (result: number) => void;
}
