import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import { PodvmError } from '#base/errors.ts';
import { sendError } from './http.ts';

/** Path and query of a request. */
export interface Asked {
  readonly query: URLSearchParams;
  /** The value of a `:word` of the route's path. */
  readonly segment: (word: string) => string;
}

export interface Call extends Asked {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** Aborts when the client is gone. */
  readonly signal: AbortSignal;
}

/**
 * Handlers by path. A part of a path that begins with a colon matches any one part. Calls have their method before the
 * path.
 */
export type Table<H> = Readonly<Record<string, H>>;
export type Routes = Table<(call: Call) => Promise<void> | void>;

/** Answers each request by the table. Errors become answers of their kind; an unknown path is `notFound`. */
export function answerBy(routes: Routes): RequestListener {
  return (request, response) => {
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    const { signal } = gone;
    const answer = async () => {
      const { asked, handler } = find(routes, request, `${request.method} `);
      await handler({ ...asked, request, response, signal });
    };
    answer().catch((error: unknown) => sendError(response, error));
  };
}

/** Returns the handler for a request's path, with `before` in front of it. Errors: `notFound`, `invalid`. */
export function find<H>(table: Table<H>, { url = '/' }: IncomingMessage, before = ''): { asked: Asked; handler: H } {
  const parsed = URL.parse(`http://podvm${url}`);
  if (parsed === null) throw new PodvmError('invalid', 'Cannot read the request: the request path is invalid');
  const given = `${before}${parsed.pathname}`.split('/');
  for (const [route, handler] of Object.entries(table)) {
    const wanted = route.split('/');
    if (wanted.length !== given.length || !wanted.every((part, at) => isMet(part, given[at] ?? ''))) continue;
    const segment = (word: string) => decoded(given[wanted.indexOf(`:${word}`)] ?? '');
    return { asked: { query: parsed.searchParams, segment }, handler };
  }
  throw new PodvmError('notFound', `Cannot answer ${before}${parsed.pathname}: there is no such call`, {
    fix: 'Use the podvm of the same version as the process that serves.',
  });
}

const isMet = (wanted: string, given: string): boolean => (wanted.startsWith(':') ? given !== '' : wanted === given);

function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch (cause) {
    throw new PodvmError('invalid', 'Cannot read the request: its path is badly encoded', { cause });
  }
}
