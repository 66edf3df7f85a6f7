import type { Link, LinkStream } from '#link/link.ts';

/** A stream whose loss needs no handler: the sandbox reports a lost link, and readers see it when they read. */
export function openStream(guest: Link, options?: Parameters<Link['openStream']>[0]): LinkStream {
  const stream = guest.openStream(options);
  stream.on('error', () => {}); // without a listener a lost link would end the whole process
  return stream;
}

/** A stream for bytes from the guest only: its other half is ended, so it closes when they end. */
export function openOutputStream(guest: Link, options?: Parameters<Link['openStream']>[0]): LinkStream {
  const stream = openStream(guest, options);
  stream.end();
  return stream;
}
