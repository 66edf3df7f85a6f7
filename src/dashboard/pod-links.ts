import { randomBytes } from 'node:crypto';
import type { ClientRequest, IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { request as requestOf } from '#host/socket/node-http.ts';
import { connectPod, type PodPort } from './pod-connection.ts';

/** Most links; the oldest ends when another is opened. */
const maxLinks = 64;
const labelBytes = 20;
/** Largest header of a pod's answer. */
const maxHeaderBytes = 64 * 1024;
/** Headers that concern one connection, not the message (RFC 9110, 7.6.1). */
const ofConnection = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

/**
 * Links to HTTP servers in pods. Each has a host of its own, `LABEL.localhost`: what a pod sends is of another origin than
 * the dashboard and other links, so that its scripts, cookies and storage reach neither. The label is random, and knowing it
 * is what authorises a request: other users of this host, and pages of other sites, cannot guess it.
 */
export class PodLinks {
  readonly #ports = new Map<string, PodPort>();
  readonly #socketPath: string;

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
  }

  /** Opens a link, and returns its host. */
  open(port: PodPort): string {
    const label = randomBytes(labelBytes).toString('hex');
    this.#ports.set(label, port);
    const [oldest] = this.#ports.keys();
    if (this.#ports.size > maxLinks && oldest !== undefined) this.#ports.delete(oldest);
    return `${label}.localhost`;
  }

  /** The port of the link that a request is for; undefined if it is for none. */
  find({ headers: { host = '' } }: IncomingMessage): PodPort | undefined {
    const [, label = ''] = /^([0-9a-f]+)\.localhost(?::\d+)?$/.exec(host.toLowerCase()) ?? [];
    return this.#ports.get(label);
  }

  /** Passes a request on to the pod, and its answer back, each at the reader's pace. */
  forward(to: PodPort, request: IncomingMessage, response: ServerResponse): void {
    const outgoing = this.#request(to, request, kept(request.rawHeaders));
    outgoing.once('response', (answer) => {
      answer.on('error', () => response.destroy());
      try {
        // Other sites that the pod's pages load from must not learn the label.
        const headers = kept(answer.rawHeaders, 'referrer-policy');
        response.writeHead(answer.statusCode ?? 502, [...headers, 'referrer-policy', 'same-origin']).flushHeaders();
        answer.pipe(response);
      } catch {
        response.destroy(); // a status or a header that no server may send
      }
    });
    const fail = (error: Error) => {
      if (response.headersSent) return void response.destroy();
      response.writeHead(502, { 'content-type': 'text/plain; charset=utf-8' }).end(unreached(to, error));
    };
    outgoing.on('error', fail);
    // Node reports nothing else of an answer that changes the protocol, which no one asked for.
    outgoing.once('close', () => {
      if (!response.headersSent && !response.destroyed) fail(new Error('it changes the protocol'));
    });
    response.once('close', () => outgoing.destroy());
    request.pipe(outgoing);
  }

  /** Passes a WebSocket, or another protocol that begins as HTTP, on to the pod as bytes. */
  forwardUpgrade(to: PodPort, request: IncomingMessage, client: Duplex, head: Buffer): void {
    const outgoing = this.#request(to, request, request.rawHeaders);
    outgoing.once('upgrade', (answer, pod, podHead) => {
      client.write(headOf(answer, answer.rawHeaders), 'latin1');
      if (podHead.length > 0) client.write(podHead);
      if (head.length > 0) pod.write(head);
      for (const [from, other] of [
        [pod, client],
        [client, pod],
      ] as const) {
        from.on('error', () => other.destroy());
        from.once('close', () => other.destroy());
        from.pipe(other);
      }
    });
    outgoing.once('response', (answer) => {
      answer.on('error', () => client.destroy());
      client.write(headOf(answer, [...kept(answer.rawHeaders), 'connection', 'close']), 'latin1');
      answer.pipe(client);
    });
    outgoing.on('error', () => client.destroy());
    client.once('close', () => outgoing.destroy());
    outgoing.end();
  }

  #request(to: PodPort, { method, url = '/' }: IncomingMessage, headers: readonly string[]): ClientRequest {
    return requestOf({
      method,
      path: url,
      headers: [...headers],
      setHost: false, // that of the request is among its headers
      maxHeaderSize: maxHeaderBytes,
      createConnection: () => connectPod(this.#socketPath, to),
    });
  }
}

/** Raw headers, names and values in turn, without those of the connection and `others`. */
function kept(raw: readonly string[], ...others: readonly string[]): readonly string[] {
  return raw.filter((_, at) => {
    const name = (raw[at - (at % 2)] ?? '').toLowerCase();
    return !ofConnection.has(name) && !others.includes(name);
  });
}

/** The head of an answer. Each of its characters is a byte, as Node reads headers. */
function headOf({ statusCode = 502, statusMessage = '' }: IncomingMessage, headers: readonly string[]): string {
  const lines = [`HTTP/1.1 ${statusCode} ${statusMessage}`];
  for (let at = 0; at < headers.length; at += 2) lines.push(`${headers[at]}: ${headers[at + 1]}`);
  return `${lines.join('\r\n')}\r\n\r\n`;
}

function unreached({ namespace, name, port }: PodPort, error: Error): string {
  const why =
    error instanceof PodvmError ? error.message : `it does not answer as an HTTP server does (${error.message})`;
  return `Cannot open port ${port} of ${printable(namespace)}/${printable(name)}: ${printable(why)}\n`;
}
