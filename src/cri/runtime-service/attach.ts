import { PodvmError } from '#base/errors.ts';
import type { KnownContainer } from '../known-pods.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import type { AttachTarget } from '../streaming/streaming.ts';
import type { AttachRequest, AttachResponseSchema } from '../schema/api_pb.ts';

/** Returns a URL for the container's own streams. Errors: `notFound`, `failedPrecondition`, those of the streams. */
export async function attach(
  { pods, streaming }: CriParts,
  { containerId, stdin, stdout, stderr, tty }: AttachRequest,
): Promise<Answer<typeof AttachResponseSchema>> {
  const known = pods.container(containerId);
  assertRuns(known);
  return { url: streaming.attachUrl({ target: targetOf(known), stdin, stdout, stderr, tty }) };
}

function targetOf(known: KnownContainer): AttachTarget {
  const { container, config } = known;
  return {
    attach: async () => {
      assertRuns(known); // it may have ended since the URL was issued
      return {
        ...(container.stdin === undefined ? {} : { stdin: container.stdin }),
        stdinOnce: config.stdinOnce,
        follow: (onChunk) => container.follow(onChunk),
        resize: (columns, rows) => container.resize(columns, rows, new AbortController().signal),
        detach: () => {},
      };
    },
  };
}

function assertRuns({ container }: KnownContainer): void {
  const { state, name } = container.status;
  if (state === 'running') return;
  throw new PodvmError('failedPrecondition', `Cannot attach to container ${name}: it is ${state}`);
}
