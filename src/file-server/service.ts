import type { Timers, Descriptors, Runtime } from '#engine/engine.ts';
import type { Powers } from './powers.ts';
import type { Served } from './served.ts';
import type { Flushes } from './flushes.ts';
import type { Locks } from './locks.ts';
import type { Reply, Request } from './message.ts';
import type { Nodes } from './nodes.ts';
import type { OpenFiles } from './open-files.ts';

/** What the file server's build of the engine has. */
export type FileServerEngine = Timers & Descriptors & Runtime & Served & Powers;

export type ServerEngine = Pick<
  FileServerEngine,
  keyof (Served & Descriptors & Timers) | 'print' | 'actAs' | 'fileSystemOf'
>;

/** Bytes of the reply's body, or a negative errno; undefined: there is none, or it comes later. */
export type Result = number | undefined;

/** What answers requests. */
export interface Service {
  readonly engine: ServerEngine;
  readonly reply: Reply;
  readonly nodes: Nodes;
  readonly files: OpenFiles;
  readonly locks: Locks;
  readonly flushes: Flushes;
  /** Answers a request that has to wait, when the message is gone that asked. */
  readonly later: (request: Request) => (result: number) => void;
}
