/** The parts of a valibot schema that can hold named fields. */
interface SchemaShape {
  readonly type?: string;
  readonly entries?: Readonly<Record<string, SchemaShape>>;
  readonly item?: SchemaShape;
  readonly wrapped?: SchemaShape;
}

/**
 * What Kubernetes reads of keys without a value (`key:`, null), as Go's JSON has it: the field of an object is absent, an
 * entry of a map of strings stays with "", and so does an item of a list of strings; an object in a list is an empty one.
 */
export function withoutNulls(schema: object, value: unknown): unknown {
  const shape: SchemaShape = schema;
  if (shape.wrapped !== undefined) return withoutNulls(shape.wrapped, value);
  if (Array.isArray(value)) {
    const { item } = shape;
    return value.map((it: unknown) => (item === undefined ? it : withoutNulls(item, it ?? emptyOf(item))));
  }
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value);
  if (shape.type === 'record') return Object.fromEntries(entries.map(([key, child]) => [key, child ?? '']));
  if (shape.entries === undefined) return value;
  const known = shape.entries;
  return Object.fromEntries(
    entries
      .filter(([, child]) => child !== null)
      .map(([key, child]) => [key, Object.hasOwn(known, key) ? withoutNulls(known[key] ?? {}, child) : child]),
  );
}

function emptyOf(item: SchemaShape): unknown {
  if (item.wrapped !== undefined) return emptyOf(item.wrapped);
  if (item.entries !== undefined) return {};
  return item.type === 'string' ? '' : null;
}
