import type { Finding } from '#api/finding.ts';
import { formatReference, parseReference } from '#base/image-reference.ts';
import type { ImageCounts } from '#image/image-counts.ts';

/** A container that waits to be made. */
export interface WaitingContainer {
  readonly name: string;
  readonly image: string;
}

/** Age of a pull from which on its registry is slow or silent, in `ms`. */
const worthPullMs = 30_000;

/** Pulls in progress for which containers of a pod wait. */
export function pullFindings(
  waiting: readonly WaitingContainer[],
  pulling: ImageCounts['pulling'],
  nowMs: number,
): readonly Finding[] {
  return waiting.flatMap(({ name: container, image }): readonly Finding[] => {
    const full = fullNameOf(image);
    const pull = pulling.find(({ reference }) => reference === full);
    if (full === undefined || pull === undefined) return [];
    const name = `image of ${container}`;
    const ms = Math.max(0, nowMs - pull.sinceMs);
    const detail = `${container} waits for the pull of ${full}, which has taken ${Math.floor(ms / 1000)} s`;
    if (ms < worthPullMs) return [{ name, status: 'ok', detail }];
    return [
      { name, status: 'warn', detail, fix: 'Its registry is slow or silent: ask it yourself with `podvm image pull`.' },
    ];
  });
}

/** Undefined for an id and for what is no name, which nothing pulls. */
function fullNameOf(image: string): string | undefined {
  try {
    return formatReference(parseReference(image));
  } catch {
    return undefined;
  }
}
