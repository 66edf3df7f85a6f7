import type { Link, LinkStream } from '#link/link.ts';

/** A stream whose loss nobody need hear: the sandbox says that the link is gone, and readers see it when they read. */
export function openStream(guest: Link, options?: Parameters<Link['openStream']>[0]): LinkStream {
  const stream = guest.openStream(options);
  stream.on('error', () => {}); // without a listener a lost link would end the whole process
  return stream;
}

/** A stream that only brings bytes from the guest: with its other half ended, it is gone when they end. */
export function openOutputStream(guest: Link, options?: Parameters<Link['openStream']>[0]): LinkStream {
  const stream = openStream(guest, options);
  stream.end();
  return stream;
}
