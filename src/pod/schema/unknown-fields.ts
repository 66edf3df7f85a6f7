/** A field that the schema does not name; reported, so that no field of a user is dropped silently. */
export interface UnknownField {
  readonly path: readonly (string | number)[];
  readonly value: unknown;
  /** The field that was probably meant. */
  readonly suggestion: string | undefined;
}

/** The parts of a valibot schema that can hold named fields. */
interface SchemaShape {
  readonly entries?: Readonly<Record<string, SchemaShape>>;
  readonly item?: SchemaShape;
  readonly wrapped?: SchemaShape;
}

export const maxUnknownFields = 100;

/** Fields of `value` that `schema` (objects, lists and optional ones of them) does not have, at most 100. */
export function unknownFields(schema: object, value: unknown): UnknownField[] {
  const found: UnknownField[] = [];
  visit(schema, value, [], found);
  return found;
}

function visit(schema: SchemaShape, value: unknown, path: readonly (string | number)[], found: UnknownField[]): void {
  if (found.length >= maxUnknownFields) return;
  if (schema.wrapped !== undefined) {
    visit(schema.wrapped, value, path, found);
  } else if (schema.item !== undefined && Array.isArray(value)) {
    for (const [index, item] of value.entries()) visit(schema.item, item, [...path, index], found);
  } else if (schema.entries !== undefined && typeof value === 'object' && value !== null && !Array.isArray(value)) {
    for (const [key, child] of Object.entries(value)) {
      const known = Object.hasOwn(schema.entries, key) ? schema.entries[key] : undefined;
      if (known !== undefined) visit(known, child, [...path, key], found);
      else found.push({ path: [...path, key], value: child, suggestion: nearest(key, Object.keys(schema.entries)) });
    }
  }
}

const maxComparedChars = 64;

/** Returns the nearest candidate whose edit distance to `word` is at most a third of its letters. */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  if (word.length > maxComparedChars) return undefined;
  let best: { readonly candidate: string; readonly distance: number } | undefined;
  for (const candidate of candidates) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance <= Math.max(1, Math.floor(candidate.length / 3)) && distance < (best?.distance ?? Infinity)) {
      best = { candidate, distance };
    }
  }
  return best?.candidate;
}

/** Levenshtein's distance. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const replaced = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
