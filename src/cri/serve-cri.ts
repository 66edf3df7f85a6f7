import { join } from 'node:path';
import type { Clock } from '#host/clock.ts';
import type { Log } from '#host/log/log.ts';
import type { ImageStore } from '#image/images.ts';
import type { Sandboxes } from '#sandbox/sandbox.ts';
import { Credentials } from './credentials.ts';
import { Delegate, type DelegateSettings } from './delegate/delegate.ts';
import { routeVerbs } from './delegate/route-verbs.ts';
import { encodedLists } from './encoded-lists.ts';
import { Events } from './events.ts';
import { imageVerbs } from './image-verbs.ts';
import { KnownPods } from './known-pods.ts';
import type { CriParts, NodeFacts } from './parts.ts';
import { PodRecords } from './pod-records.ts';
import { PodStarts } from './pod-starts.ts';
import { recoverPods } from './recover-pods.ts';
import { serveGrpc } from './rpc/serve-grpc.ts';
import { addService } from './rpc/service.ts';
import { runtimeVerbs } from './runtime-verbs.ts';
import { ImageService, RuntimeService } from './schema/api_pb.ts';

export interface CriOptions {
  readonly socketPath: string;
  /** Private directory of CRI; created if missing. */
  readonly directory: string;
  readonly sandboxes: Pick<Sandboxes, 'run' | 'list'>;
  readonly images: ImageStore;
  readonly streaming: CriParts['streaming'];
  readonly networkReadiness: CriParts['networkReadiness'];
  readonly clock: Clock;
  readonly log: Log;
  readonly node: NodeFacts;
  /** The runtime for pods that cannot be machines; undefined: they are refused. */
  readonly delegate?: DelegateSettings | undefined;
}

/**
 * Serves CRI v1 to a kubelet on a unix socket until it is disposed. Its pods continue. Errors: those of `serveGrpc`.
 */
export async function serveCri(options: CriOptions): Promise<AsyncDisposable> {
  const { sandboxes, images, streaming, networkReadiness, clock, log, node } = options;
  const records = new PodRecords(join(options.directory, 'pods'), log);
  const pods = new KnownPods(records);
  const events = new Events(clock);
  const parts: CriParts = {
    sandboxes,
    images,
    streaming,
    networkReadiness,
    clock,
    log,
    node,
    pods,
    starts: new PodStarts(pods, log),
    events,
    credentials: await Credentials.open(join(options.directory, 'credentials')),
  };
  await recoverPods(parts, await records.load());
  const own = { runtime: runtimeVerbs(parts), images: imageVerbs(parts) };
  const alone = { ...own, runtime: { ...own.runtime, ...encodedLists(parts) } };
  await using undo = new AsyncDisposableStack();
  const delegate = options.delegate === undefined ? undefined : undo.use(new Delegate(options.delegate, log));
  const directory = join(options.directory, 'delegate');
  const verbs = delegate === undefined ? alone : await routeVerbs(own, delegate, { pods, directory, streaming, log });
  const server = await serveGrpc(options.socketPath, (to) => {
    addService(to, RuntimeService, verbs.runtime, log);
    addService(to, ImageService, verbs.images, log);
  });
  const owned = undo.move();
  return {
    async [Symbol.asyncDispose]() {
      events.end(); // ends calls that would never end
      await server[Symbol.asyncDispose]();
      await owned.disposeAsync();
    },
  };
}
