/** Divides items into at most `most` portions of nearly equal size, in their order; none is empty. */
export function portionsOf<Item>(items: readonly Item[], most: number): readonly (readonly Item[])[] {
  const count = Math.min(most, items.length);
  const startOf = (portion: number) => Math.ceil((portion * items.length) / count);
  return Array.from({ length: count }, (_, portion) => items.slice(startOf(portion), startOf(portion + 1)));
}
