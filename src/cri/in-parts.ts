/** Items in one message of a streamed list. */
export const itemsInPart = 100;

export function* inParts<T>(items: readonly T[]): Generator<T[]> {
  for (let at = 0; at < items.length; at += itemsInPart) yield items.slice(at, at + itemsInPart);
}
