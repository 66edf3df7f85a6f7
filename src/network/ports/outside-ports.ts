import { Socket as UdpSocket } from 'node:dgram';
import { Server } from 'node:net';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import type { PortAddress } from '../port-address.ts';

/**
 * The node of an ordinary user has a network namespace of its own. The process that has started it stays on the host, and
 * listens there for it (`src/daemon/rootless/host-listeners.ts`): a request over the channel between the two names an
 * address, and the answer carries the socket.
 */
export const listenRequestSchema = v.object({
  id: v.pipe(v.number(), v.safeInteger()),
  protocol: v.picklist(['TCP', 'UDP']),
  address: v.pipe(v.string(), v.ip()),
  port: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65_535)),
});
export type ListenRequest = v.InferOutput<typeof listenRequestSchema>;

/** `code`: the system error that comes instead of a socket. */
const answerSchema = v.object({ id: v.number(), code: v.exactOptional(v.string()) });
export type ListenAnswer = v.InferOutput<typeof answerSchema>;

type Waiter = PromiseWithResolvers<unknown>;
const waiting = new Map<number, Waiter>();
let last = 0;

/** Errors: those of bind(2), as Node's; `unavailable` when the other process has ended. */
export async function listenOutside(at: Omit<PortAddress, 'protocol'>, protocol: 'TCP'): Promise<Server>;
export async function listenOutside(at: Omit<PortAddress, 'protocol'>, protocol: 'UDP'): Promise<UdpSocket>;
export async function listenOutside(
  { address, port }: Omit<PortAddress, 'protocol'>,
  protocol: ListenRequest['protocol'],
): Promise<Server | UdpSocket> {
  if (process.send === undefined || !process.connected) throw ended();
  if (last === 0) {
    process.on('message', take);
    process.on('disconnect', () => {
      for (const each of waiting.values()) each.reject(ended());
    });
  }
  last += 1;
  const waiter: Waiter = Promise.withResolvers();
  waiting.set(last, waiter);
  process.channel?.ref(); // else a process that has nothing else to do would end
  try {
    process.send({ id: last, protocol, address, port } satisfies ListenRequest);
    const socket = await waiter.promise;
    if (socket instanceof (protocol === 'TCP' ? Server : UdpSocket)) return socket;
    throw new PodvmError('internal', `Cannot listen on port ${port} of the host: got no socket`);
  } finally {
    for (const [id, each] of waiting) if (each === waiter) waiting.delete(id);
    if (waiting.size === 0) process.channel?.unref();
  }
}

function take(message: unknown, socket: unknown): void {
  const answer = v.safeParse(answerSchema, message);
  if (!answer.success) return;
  const waiter = waiting.get(answer.output.id);
  const { code } = answer.output;
  if (code === undefined) waiter?.resolve(socket);
  else waiter?.reject(Object.assign(new Error(`Cannot listen on the host: ${code}`), { code }));
}

const ended = () =>
  new PodvmError('unavailable', 'Cannot listen on the host: the process of this node that is outside has ended', {
    fix: 'Stop the node with `podvm uninstall`, and start the pods again.',
  });
